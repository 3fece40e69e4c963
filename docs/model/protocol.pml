/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * vmferry's peer protocol, to be searched by spin. README.md says how to run it; vmferry-protocol(7), "the page", has the
 * rules in words. An inline has the name of the function of helper/ whose rule it is, and its comment the page's section.
 *
 * Two helpers, the source S and the destination D, react to one event at a time, as their event loops do. Between them
 * anything may happen: a connection is lost, with what is on its way or without; a side notices that at once, or late; a
 * timer ends; a caller cancels; a broker is restarted.
 *
 * Settings (-D), which tests/model/run.py combines:
 *
 *     CHANNELS  numbers that may be used     UNITS_S, UNITS_D  bytes that the QEMUs write into a channel
 *     STREAMS   channel c is on c % STREAMS  WINDOW            bytes that are kept unacknowledged
 *     LOSSES    connections that are lost    RESTARTS          restarts of brokers
 *     GIVE_UP   resume time-outs end at any time: 1 the source's, 2 the destination's, 3 both
 *     ZERO      the resume time-out is 0     CANCEL            a caller may cancel
 *     LIMIT     channels that D allows       LIES              false frames that are slipped in
 *     THIEF     another holder of the ticket comes, too
 *     BREAK     one rule is broken, one of the list below: spin must find what comes of that
 */

#define breaks(number) (BREAK == number)
#define FREES_EARLY breaks(1)     /* what was sent is freed before it is acknowledged */
#define ACKS_EARLY breaks(2)      /* what has come is acknowledged before QEMU has it */
#define RESUMES_WRONG breaks(3)   /* the channel hello has the offset of what was delivered, not of what has come */
#define FORGETS_FIN breaks(4)     /* FIN is not said again after a loss */
#define FORGETS_CLOSE breaks(5)   /* nor is CLOSE */
#define FORGETS_ACK breaks(6)     /* nor is the last ACK */
#define EOF_ENDS breaks(7)        /* a channel connection that ends is taken for the end of the flow */
#define ONE_FLOW breaks(8)        /* a channel has ended when the flow out of QEMU has */
#define CLOSES_ALONE breaks(9)    /* a channel is closed without the peer's CLOSE */
#define OPENS_TWICE breaks(10)    /* a second OPEN makes the channel anew */
#define ACK_UNCHECKED breaks(11)  /* an ACK may be of more than was sent */
#define DONE_UNCHECKED breaks(12) /* CLOSE of all is not held against the ledger */
#define SECRET_TWICE breaks(13)   /* the ticket's secret serves once more */
#define SYNC_FORGETS breaks(14)   /* SYNC is answered with the control connection alone */
#define TAKES_EARLY breaks(15)    /* QEMU's bytes are taken before the peer has answered for the channel */
#define LOSS_UNTOLD breaks(16)    /* REFUSED with Interrupted closes a channel, and nothing else */
#define REFUSED_HANGS breaks(17)  /* a REFUSED for the last channel does not end the migration */
#define DONE_TAKES breaks(18)     /* QEMU may connect after CLOSE of all was said, where the connection is a new one */
#define OLD_REPLACES breaks(19)   /* a channel from before the give-up stands in for what was given up */
#define LIMIT_AS_LOSS breaks(20)  /* what was refused for the limit is, when asked for again, refused as given up */
#define PROVED_REPLACES breaks(21) /* what a destination has proved stands in for what it gives up */

#ifndef CHANNELS
#define CHANNELS 1
#endif
#ifndef STREAMS
#define STREAMS 1
#endif
#ifndef UNITS_S
#define UNITS_S 2
#endif
#ifndef UNITS_D
#define UNITS_D 1
#endif
#ifndef WINDOW
#define WINDOW 1
#endif
#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef RESTARTS
#define RESTARTS 0
#endif
#ifndef GIVE_UP
#define GIVE_UP 0
#endif
#ifndef BREAK
#define BREAK 0
#endif
#ifndef LIES
#define LIES 0
#endif
#ifndef FRAMES
#define FRAMES 10 /* room for frames on the way; checked */
#endif

#define S 0
#define D 1
#define it (1 - me)             /* the other side */
#define name (me == S -> Source : Destination)
#define stream(c) ((c) % STREAMS) /* 0 is the main one */

mtype = { HELLO, OPEN, REFUSED, ACK, FIN, CLOSE, CLOSE_ALL, ABORT };   /* frames; OPENED says nothing */
mtype = { NEVER, LIVES, WELL, LOST };                                  /* a channel's stage */
mtype = { NONE, GREETS, PARKED, ANSWERED, UP };                        /* a channel's connection */
mtype = { OFF, RESUME, DAY };                                          /* what the timer ends */
mtype = { Source, Destination };                                       /* for spin -t, which tells a story */
mtype = { NOT_YET, DONE, CANCELLED, INTERRUPTED, LIMIT_EXCEEDED, MISMATCH }; /* results, and errors in frames */

/* ---- What is between the sides ---- */

/* The control connection that is used, and the one before, which D may still take for alive. */
chan wire[4] = [FRAMES] of { mtype, byte, mtype, byte }; /* type, channel, error, offset: 2 * connection + sender */
bit cut[2];     /* lost: what is said on it vanishes, and what was on its way may */
bit ended[4];   /* 2 * connection + side: that side ended its direction; all before arrives */
bit arriving;   /* S has proved itself on it, and D has yet to hear of that */

/* Each channel has one connection at a time: D gives it up before S may make the next one. */
chan data[2 * CHANNELS] = [WINDOW] of { byte }; /* 2 * channel + sender. A byte is its place in its flow */
mtype link[CHANNELS];           /* as S has it */
bit gone[CHANNELS];             /* lost */
byte hello[2 * CHANNELS];       /* the offset in the channel hello */

byte losses = LOSSES;
byte restarts = RESTARTS;
byte lies = LIES;
#ifdef THIEF
byte thieves = 1;
#endif
bit thief;      /* another connection of kind 1 that has proved itself */

/* ---- What a side knows ---- */

typedef Channel {       /* struct channel, with its two flows */
    mtype stage;
    bit qemu;           /* QEMU's connection is there */
    bit asked;          /* D: it was asked for */
    bit need;           /* the broker has been asked: S, for the channel connection; D, for QEMU's */
    bit peer;           /* the channel connection is attached */
    bit stale;          /* it was there when the other side gave up what it had, and not attached since */
    bit known;          /* the other side may know of it */
    bit announced, open_again;
    bit close_sent, close_received, close_again;
    /* the flow out of QEMU */
    bit from;           /* it may be read */
    byte taken, sent, acked;
    bit eof, fin_sent;
    /* the flow in to QEMU */
    byte received, delivered, told, total;
    bit fin, fin_again, shut;
};
Channel channels[2 * CHANNELS];
#define ch(c, side) channels[2 * (c) + (side)]
#define my(c) ch(c, me)

typedef Session {       /* struct session */
    bit conn;           /* which of the two control connections */
    bit control;        /* there is one */
    bit greeted;        /* and the peer's HELLO was on it */
    bit met;            /* one ever was: no longer STATE_WAITING */
    bit adopted, adopted_again;
    bit need;           /* S: the broker has been asked for the control connection */
    bit unsynced;       /* the broker is a new one, and has yet to say SYNC: it knows of no request, and takes none */
    bit close_sent, done_said;
    bit main_ended, given_up, farewell;
    byte lost_streams;  /* bits: a channel was given up, and none has ended well in its place */
    byte next_channel;
    mtype timer;
    bit over;
    mtype result;
};
Session session[2];
#define mine session[me]
#define out_wire wire[2 * mine.conn + me]
#define in_wire wire[2 * mine.conn + it]

byte served;    /* ghost: control connections that the ticket's secret has proved */

/*
 * Scratch of one event, none of it between two: what an event has yet to come to, so that each consequence stands once,
 * in after(). An event is one step, and has no choice but which it is.
 */
hidden byte i, j, k, n, v;
hidden mtype type, error;
hidden byte complete, alone, whole, replaced;
hidden byte lied;           /* session_end_violated() */
hidden byte lose;           /* session_interrupt() */
hidden byte give_up;        /* give_channels_up() */
hidden byte proved;         /* streams; PROVED_REPLACES */
hidden byte adopt;          /* session_adopt() */
hidden byte update;         /* channel_update() of channel update − 1; 0: of none */
hidden byte closing;        /* session_end_if_complete() */
hidden byte finish;         /* session_end(), with `result`, and `tell` the peer */
hidden byte tell;
hidden mtype result;

#define to_acknowledge(c) (ACKS_EARLY -> my(c).received : my(c).delivered)
#define units(side) ((side) == S -> UNITS_S : UNITS_D)
#define out_ended(c, side) (ch(c, side).eof && ch(c, side).acked == ch(c, side).taken)
#define in_ended(c, side) (ch(c, side).fin && ch(c, side).delivered == ch(c, side).total && ch(c, side).shut)
#define relay_ended(c, side) ((in_ended(c, side) || ONE_FLOW) && out_ended(c, side))
#define carried_at(c, side) (ch(c, side).taken + ch(c, side).total > 0)
#define carried(c) (ch(c, S).taken + ch(c, D).taken > 0)
#define delivered_all(c) (ch(c, S).taken == ch(c, D).delivered && ch(c, D).taken == ch(c, S).delivered)

/* ---- The end of a migration ---- */

/* Page: "The end of a migration", a ledger that is complete. Sets `complete`. */
inline channels_are_complete(side)
{
    complete = session[side].main_ended;
    v = session[side].lost_streams;
    alone = true;
    for (k : 0 .. CHANNELS - 1) {
        if
        :: ch(k, side).stage == LIVES && !relay_ended(k, side) -> alone = false
        :: ch(k, side).stage == LIVES && relay_ended(k, side) && carried_at(k, side) ->
            complete = complete || stream(k) == 0;
            v = v & ~(ch(k, side).stale -> 0 : 1 << stream(k))
        :: else
        fi
    }
    complete = complete && alone && v == 0
}

/* The property: who says "done" says the truth, of both directions. */
inline check_done()
{
    whole = false;
    for (i : 0 .. CHANNELS - 1) {
        replaced = false;
        for (j : i + 1 .. CHANNELS - 1) {
            replaced = replaced || (stream(j) == stream(i) && carried(j) && delivered_all(j) && ch(j, S).eof)
        }
        assert(!carried(i) || delivered_all(i) || replaced);
        whole = whole || (stream(i) == 0 && carried(i) && delivered_all(i))
    }
    assert(whole)
}

inline control_send(t, c, e, o)
{
    if
    :: mine.control && !cut[mine.conn] && !ended[2 * mine.conn + it] ->
        assert(nfull(out_wire));
        printf("%e says %e %d %e %d\n", name, t, c, e, o);
        out_wire!t, c, e, o
    :: else
    fi
}

inline drain(queue)
{
    do
    :: nempty(queue) -> queue?_, _, _, _
    :: empty(queue) -> break
    od
}

inline end_with(r, t)
{
    finish = true;
    result = r;
    tell = t
}

/* Page: "ABORT". What was said before arrives first. */
inline session_end()
{
    printf("%e ends, %e\n", name, result);
    if
    :: result == DONE && !mine.farewell -> check_done()
    :: else
    fi;
    if
    :: tell -> control_send(ABORT, 0, result, 0)
    :: else
    fi;
    if
    :: mine.control -> ended[2 * mine.conn + me] = true; drain(in_wire)
    :: else
    fi;
    if
    :: me == D && arriving -> arriving = false; cut[session[S].conn] = true
    :: else
    fi;
    mine.over = true;
    mine.result = (mine.farewell -> CANCELLED : result); /* as its broker has said already */
    mine.control = false;
    mine.greeted = false;
    mine.timer = OFF
}

/* Between two sides that keep to the page nothing is ever ProtocolMismatch. Page: "When what is permitted". */
#if LIES > 0
#define session_end_violated() end_with(MISMATCH, true)
#else
#define session_end_violated() lied = true; assert(!lied)
#endif

/* requests_ask_peer(), requests_ask_qemu() */
#define asks (!mine.unsynced)

/* ---- Channels ---- */

inline channel_close(c)
{
    if
    :: my(c).stage == LIVES ->
        if
        :: my(c).close_sent && (my(c).close_received || CLOSES_ALONE) -> my(c).stage = WELL
        :: else -> my(c).stage = LOST
        fi;
        my(c).qemu = false;
        my(c).peer = false;
        if
        :: me == S -> link[c] = NONE
        :: else
        fi
    :: else
    fi
}

/* It ends well: count(). Page: "The end of a migration". */
#define count(c) mine.main_ended = mine.main_ended || (carried_at(c, me) && stream(c) == 0)

/* Here, or at the other side: which of them has carried bytes one side alone cannot know. Page: "The end of a
 * migration", what was given up counts. */
inline channel_give_up(c)
{
    if
    :: my(c).stage == LIVES && my(c).known ->
        mine.lost_streams = mine.lost_streams | (1 << stream(c))
    :: else
    fi;
    channel_close(c)
}

/* Page: "The end of a migration". */
inline session_end_if_complete()
{
    if
    :: me == S && !mine.close_sent ->
        channels_are_complete(me);
        alone = true;
        for (k : 0 .. CHANNELS - 1) {
            alone = alone && my(k).stage != LIVES
        }
        if
        :: complete && alone -> mine.close_sent = true; mine.done_said = true; control_send(CLOSE_ALL, 0, 0, 0)
        :: else
        fi
    :: else
    fi
}

/* Page: "The ledger", ACK. */
inline channel_ack(c)
{
    if
    :: mine.greeted -> my(c).told = to_acknowledge(c); control_send(ACK, c, 0, my(c).told)
    :: else
    fi
}

/* Page: "The ledger", FIN; "The end of a channel". */
inline channel_tell(c)
{
    if
    :: mine.greeted ->
        if
        :: my(c).eof && !my(c).fin_sent && my(c).sent == my(c).taken && my(c).peer ->
            my(c).fin_sent = true;
            control_send(FIN, c, 0, my(c).taken)
        :: else
        fi;
        if
        :: in_ended(c, me) && my(c).told != to_acknowledge(c) -> channel_ack(c)
        :: else
        fi;
        if
        :: relay_ended(c, me) && !my(c).close_sent && (my(c).peer || my(c).close_received) ->
            my(c).close_sent = true;
            control_send(CLOSE, c, 0, 0)
        :: else
        fi
    :: else
    fi
}

/* After each event of a channel. Page: "The ledger", when QEMU is told; "The end of a channel". */
inline channel_update(c)
{
    if
    :: my(c).stage == LIVES && !mine.over ->
        if /* shut_when_done() */
        :: my(c).fin && my(c).delivered == my(c).total && my(c).qemu -> my(c).shut = true
        :: else
        fi;
        if /* set_open() */
        :: my(c).qemu && my(c).peer && mine.given_up -> mine.given_up = false; mine.timer = OFF
        :: else
        fi;
        channel_tell(c);
        if
        :: my(c).close_sent && (my(c).close_received || CLOSES_ALONE) ->
            count(c);
            if
            :: carried_at(c, me) ->
                mine.lost_streams = mine.lost_streams & ~(my(c).stale -> 0 : 1 << stream(c))
            :: else
            fi;
            channel_close(c);
            closing = true
        :: else
        fi
    :: else
    fi
}

/* Page: "The loss". */
inline relay_detach(c)
{
    my(c).peer = false;
    my(c).announced = false;
    my(c).need = my(c).need && me == D; /* a connection with an old serial is not taken */
    my(c).close_sent = my(c).close_sent && FORGETS_CLOSE;
    my(c).close_again = my(c).close_received;
    my(c).open_again = true;
    my(c).fin_again = my(c).fin
}

/* Page: "Opening", the offsets. */
inline flow_resume(c, offset)
{
    if
    :: offset < (FREES_EARLY -> my(c).sent : my(c).acked) || offset > my(c).sent -> session_end_violated()
    :: else
    fi;
    my(c).fin_sent = my(c).fin_sent && FORGETS_FIN;
    my(c).sent = offset
}

/* Page: "What is said again", ACK. */
inline channel_set_peer(c)
{
    printf("%e has the connection of channel %d\n", name, c);
    my(c).peer = true;
    my(c).stale = false;
    if /* channels_dial_stream(), asked for once */
    :: me == D && !my(c).asked -> my(c).asked = true; my(c).need = asks
    :: else
    fi;
    my(c).from = my(c).qemu;
    if
    :: my(c).delivered != 0 && !FORGETS_ACK -> channel_ack(c)
    :: else
    fi;
    update = c + 1
}

/* Page: "Opening", the destination's answer. */
inline on_channel_hello(c)
{
    flow_resume(c, hello[2 * c + S]);
    hello[2 * c + D] = (RESUMES_WRONG -> my(c).delivered : my(c).received);
    link[c] = ANSWERED;
    channel_set_peer(c)
}

inline channel_new(c)
{
    my(c).stage = LIVES;
    my(c).known = (me == D)
}

/* Page: "Opening". The source's broker is asked for the connection, too: see need_peer. */
inline channel_announce(c)
{
    my(c).announced = true;
    my(c).known = true;
    my(c).need = asks;
    control_send(OPEN, c, 0, 0)
}

/* Page: "What is said again". */
inline channels_announce_all()
{
    for (i : 0 .. CHANNELS - 1) {
        if
        :: my(i).stage == LIVES -> channel_announce(i)
        :: mine.adopted_again && (my(i).stage == WELL || my(i).stage == LOST) ->
            if
            :: my(i).close_sent -> control_send(CLOSE, i, 0, 0)
            :: else -> control_send(REFUSED, i, INTERRUPTED, 0)
            fi
        :: else
        fi
    }
}

/* ---- A lost connection ---- */

/* Page: "The loss". */
inline give_channels_up()
{
    channels_are_complete(me);
    if
    :: complete -> end_with(DONE, false)
    :: else ->
        printf("%e gives its channels up\n", name);
        mine.given_up = true;
        for (i : 0 .. CHANNELS - 1) {
            if /* channel_abandon() */
            :: me == D && my(i).stage == LIVES && relay_ended(i, me) ->
                count(i);
                channel_close(i);
                proved = proved | (PROVED_REPLACES -> 1 << stream(i) : 0)
            :: else -> channel_give_up(i)
            fi
        }
        mine.lost_streams = mine.lost_streams & ~proved;
        proved = 0;
        mine.timer = DAY;
        if
        :: mine.next_channel == 0 -> end_with(INTERRUPTED, false)
        :: else
        fi
    fi
}

/* All is given up but QEMU's connections and the ledgers. Page: "The loss". */
inline session_clean_up()
{
    printf("%e has lost the connection\n", name);
    cut[mine.conn] = true;
    drain(in_wire);
    for (i : 0 .. CHANNELS - 1) {
        if
        :: link[i] != NONE ->
            gone[i] = true;
            link[i] = (me == S -> NONE : link[i])
        :: else
        fi;
        do
        :: nempty(data[2 * i + it]) -> data[2 * i + it]?_
        :: empty(data[2 * i + it]) -> break
        od;
        if
        :: my(i).stage == LIVES -> relay_detach(i)
        :: else
        fi
    }
    mine.control = false;
    mine.greeted = false;
    mine.need = asks; /* on_redial() */
#ifdef ZERO
    give_up = true
#else
    if
    :: mine.timer == OFF -> mine.timer = RESUME
    :: else
    fi
#endif
}

/* session_on_lost(), control_last_word(), session_interrupt(). Page: "The loss". */
inline session_interrupt()
{
    if
    :: in_wire??[ABORT, _, _, _] ->
        in_wire??ABORT, _, error, _;
        end_with(error, false)
    :: else ->
        if
        :: !mine.met -> end_with(INTERRUPTED, false)
        :: else -> session_clean_up()
        fi
    fi
}

/* Page: "Which connection counts", "HELLO". */
inline session_adopt()
{
    printf("%e has a control connection\n", name);
    mine.conn = (me == S -> 1 - mine.conn : session[S].conn);
    mine.control = true;
    mine.greeted = false;
    mine.close_sent = false;
    mine.adopted_again = mine.adopted;
    mine.adopted = true;
    if
    :: me == S -> control_send(HELLO, 0, 0, 0)
    :: else
    fi
}

/* Of kind 1. Page: "Which connection counts". */
inline on_proved()
{
    if
    :: !mine.adopted || SECRET_TWICE -> served++
    :: else /* ABORT, TicketUsed */
    fi;
    assert(served <= 1)
}

/* ---- Frames ---- */

/* Page: "HELLO", "The loss", when the time-out ends to count. */
inline on_hello()
{
    mine.greeted = true;
    if
    :: mine.farewell -> end_with(CANCELLED, true)
    :: else ->
        if
        :: me == D -> control_send(HELLO, 0, 0, 0)
        :: else
        fi;
        mine.met = true;
        if
        :: !mine.given_up -> mine.timer = OFF
        :: else
        fi;
        if
        :: me == S -> channels_announce_all(); closing = true
        :: else
        fi
    fi
}

/* Page: "Opening"; "What is said again", OPEN. */
inline on_open(c)
{
    if
    :: my(c).stage == LIVES && my(c).open_again ->
        my(c).open_again = false;
        update = c + 1
    :: my(c).stage != LIVES && c < mine.next_channel && mine.adopted_again -> /* say_of_ended() */
        if
        :: my(c).stage == WELL -> control_send(CLOSE, c, 0, 0)
        :: my(c).stage == LOST -> control_send(REFUSED, c, INTERRUPTED, 0)
        :: my(c).stage == NEVER -> control_send(REFUSED, c, (LIMIT_AS_LOSS -> INTERRUPTED : LIMIT_EXCEEDED), 0)
        fi
    :: c >= mine.next_channel ->
        mine.next_channel = c + 1;
        n = 0;
        for (k : 0 .. CHANNELS - 1) {
            n = n + (my(k).stage == LIVES -> 1 : 0)
        }
#ifdef LIMIT
        if
        :: n >= LIMIT -> control_send(REFUSED, c, LIMIT_EXCEEDED, 0)
        :: else ->
#endif
        channel_new(c);
        if /* peer_unpark() */
        :: link[c] == PARKED && !gone[c] -> on_channel_hello(c)
        :: else
        fi
#ifdef LIMIT
        fi
#endif
    :: OPENS_TWICE && my(c).stage == LIVES && !my(c).open_again -> my(c).received = 0
    :: else -> session_end_violated()
    fi
}

inline flow_on_ack(c, offset)
{
    if
    :: (offset < my(c).acked || offset > my(c).sent) && !ACK_UNCHECKED -> session_end_violated()
    :: else -> my(c).acked = offset; assert(offset <= my(c).sent)
    fi
}

inline flow_on_fin(c, offset)
{
    if
    :: my(c).fin && my(c).fin_again && offset == my(c).total -> my(c).fin_again = false
    :: my(c).fin && !(my(c).fin_again && offset == my(c).total) -> session_end_violated()
    :: !my(c).fin && offset < my(c).received -> session_end_violated()
    :: else -> my(c).fin = true; my(c).total = offset
    fi
}

/* Page: "Opening", REFUSED and frames for a channel that is over; "The ledger"; "The end of a channel". */
inline on_channel_frame(t, c, e, o)
{
    if
    :: my(c).stage != LIVES ->
        if
        :: c >= mine.next_channel && t == REFUSED && mine.adopted_again && me == D ->
            mine.next_channel = c + 1
        :: c >= mine.next_channel && !(t == REFUSED && mine.adopted_again && me == D) -> session_end_violated()
        :: else
        fi
    :: else ->
        if
        :: t == REFUSED ->
            if
            :: my(c).peer -> session_end_violated()
            :: !my(c).peer && (e == LIMIT_EXCEEDED || LOSS_UNTOLD) -> channel_close(c)
            :: else ->
                channel_give_up(c);
                for (k : 0 .. CHANNELS - 1) {
                    my(k).stale = my(k).stale || (my(k).stage == LIVES && !my(k).peer && !OLD_REPLACES)
                }
            fi;
            closing = !REFUSED_HANGS
        :: t == ACK -> flow_on_ack(c, o)
        :: t == FIN -> flow_on_fin(c, o)
        :: t == CLOSE ->
            if
            :: (my(c).close_received && !my(c).close_again) || !relay_ended(c, me) -> session_end_violated()
            :: else
            fi;
            my(c).close_received = true;
            my(c).close_again = false
        fi;
        update = c + 1
    fi
}

/* Page: "The end of a migration". */
inline on_close_all()
{
    channels_are_complete(me);
    if
    :: !complete && !DONE_UNCHECKED -> session_end_violated()
    :: else ->
        if
        :: !mine.close_sent -> mine.close_sent = true; control_send(CLOSE_ALL, 0, 0, 0)
        :: else
        fi;
        end_with(DONE, false)
    fi
}

/* Page: "When what is permitted". */
inline on_frame()
{
    in_wire?type, n, error, v;
    printf("%e hears %e %d %e %d\n", name, type, n, error, v);
    if
    :: type == ABORT -> end_with(error, false)
    :: type == HELLO && !mine.greeted -> on_hello()
    :: type == OPEN && mine.greeted -> j = n; on_open(j)
    :: type == CLOSE_ALL && mine.greeted -> on_close_all()
    :: (type == REFUSED || type == ACK || type == FIN || type == CLOSE) && mine.greeted ->
        j = n;
        on_channel_frame(type, j, error, v)
    :: else -> session_end_violated()
    fi
}

/* ---- The sides ---- */

#define may_give_up ((GIVE_UP >> me) % 2 == 1 || timeout)

/* A side may notice a loss as soon as there is one. An orderly end is read behind all that came before it. */
#define sees_loss (mine.control && (cut[mine.conn] || (ended[2 * mine.conn + it] && empty(in_wire))))
#if CHANNELS == 1
#define any_channel(what) what(0)
#elif CHANNELS == 2
#define any_channel(what) (what(0) || what(1))
#else
#define any_channel(what) (what(0) || what(1) || what(2))
#endif
#define sees_loss_of(c) (mine.control && gone[c] && (me == S -> link[c] != NONE : my(c).peer))

/* What an event comes to. */
inline after()
{
    if
    :: lose -> session_interrupt(); lose = false
    :: else
    fi;
    if
    :: give_up && !finish -> give_channels_up(); give_up = false
    :: else
    fi;
    if
    :: adopt && !finish -> session_adopt(); adopt = false
    :: adopt && finish -> cut[session[S].conn] = true; adopt = false
    :: else
    fi;
    if
    :: update > 0 && !finish -> n = update - 1; channel_update(n); update = 0
    :: else
    fi;
    if
    :: closing && !finish -> session_end_if_complete(); closing = false
    :: else
    fi;
    if
    :: finish -> session_end(); finish = false; update = 0; closing = false
    :: else
    fi
}

#define lives (c < CONTROL && my(c).stage == LIVES && !mine.over)

#define CONTROL CHANNELS /* in place of a channel's number: what happens to the side as a whole */

/* What happens to a channel at a side. */
proctype Side(bit me; byte c)
{
    do
    :: atomic {
        if
        /* QEMU connects: page, "Opening". At D it was asked for. */
        :: me == S && c < CONTROL && c == mine.next_channel && !(DONE_TAKES -> mine.close_sent : mine.done_said) && !mine.farewell && !mine.over ->
            d_step {
                printf("%e's QEMU connects, channel %d\n", name, c);
                channel_new(c);
                mine.next_channel = c + 1;
                my(c).qemu = true;
                my(c).from = TAKES_EARLY;
                if
                :: mine.greeted -> channel_announce(c)
                :: else
                fi
            }
        :: me == D && lives && my(c).need ->
            d_step { my(c).need = false; my(c).qemu = true; my(c).from = my(c).peer; update = c + 1 }

        /* The channel connection: page, "Opening". */
        :: me == S && mine.greeted && lives && my(c).need && link[c] == NONE ->
            d_step {
                assert(!ch(c, D).peer);
                my(c).need = false;
                link[c] = GREETS;
                gone[c] = false;
                hello[2 * c + S] = my(c).received
            }
        :: me == D && c < CONTROL && mine.greeted && link[c] == GREETS && !gone[c] ->
            d_step {
                if
                :: my(c).stage == LIVES -> on_channel_hello(c)
                :: else -> link[c] = PARKED /* or closed at once: see README.md */
                fi
            }
        :: me == S && lives && mine.greeted && link[c] == ANSWERED && !gone[c] ->
            d_step { link[c] = UP; flow_resume(c, hello[2 * c + D]); channel_set_peer(c) }

        /* Bytes: page, "The ledger". QEMU's are taken while there is room, delivered as QEMU takes them. */
        :: lives && my(c).from && !my(c).eof && my(c).taken - my(c).acked < WINDOW ->
            d_step {
                if
                :: my(c).taken < units(me) ->
                    my(c).taken++;
                    printf("%e takes byte %d of channel %d\n", name, my(c).taken, c)
                :: else -> my(c).eof = true; update = c + 1; printf("%e's QEMU ends channel %d\n", name, c)
                fi
            }
        :: lives && my(c).peer && !gone[c] && my(c).sent < my(c).taken && nfull(data[2 * c + me]) ->
            d_step { data[2 * c + me]!my(c).sent; my(c).sent++; update = c + 1 }
        :: lives && my(c).peer && nempty(data[2 * c + it]) && !(my(c).fin && my(c).received == my(c).total) ->
            d_step { data[2 * c + it]?v; assert(v == my(c).received); my(c).received++ }
        :: lives && my(c).qemu && my(c).delivered < my(c).received ->
            d_step {
                my(c).delivered++;
                printf("%e delivers byte %d of channel %d\n", name, my(c).delivered, c);
                update = c + 1
            }
        :: EOF_ENDS && lives && gone[c] && my(c).peer && !my(c).fin ->
            d_step { my(c).fin = true; my(c).total = my(c).received; update = c + 1 }

        /* on_ack_timer() */
        :: lives && mine.greeted && my(c).told != to_acknowledge(c) && nfull(out_wire) -> channel_ack(c)

        /* The control connection. */
        :: c == CONTROL && mine.control && nempty(in_wire) -> d_step { on_frame() }
        :: c == CONTROL && (sees_loss || (any_channel(sees_loss_of) && !EOF_ENDS)) -> lose = true

        /* Page: "SECURITY", "Which connection counts". S is sure of D first. */
        :: c == CONTROL && me == S && !mine.over && !mine.control && !session[D].over && mine.need &&
            !(session[D].control && session[D].conn != mine.conn) ->
            d_step {
                mine.need = false;
                v = 1 - mine.conn;
                cut[v] = false;
                ended[2 * v] = false;
                ended[2 * v + 1] = false;
                drain(wire[2 * v]);
                drain(wire[2 * v + 1]);
                arriving = true;
                adopt = true
            }
        :: c == CONTROL && me == D && !mine.over && arriving ->
            d_step {
                arriving = false;
                if
                :: !mine.adopted -> on_proved()
                :: else /* of kind 3 */
                fi;
                lose = mine.control;
                adopt = true
            }

        /* on_sync(): asks again for all that has not come. Page: none, it is between helper and broker. */
        :: c == CONTROL && mine.unsynced && !mine.over ->
            d_step {
                mine.need = (me == S && !mine.control);
                for (i : 0 .. CHANNELS - 1) {
                    my(i).need = my(i).stage == LIVES &&
                        (me == S -> my(i).announced && link[i] == NONE : my(i).asked && !my(i).qemu) && !SYNC_FORGETS
                }
                mine.unsynced = false
            }

        /* on_proved(), refuse_control(). Page: "Which connection counts". */
        :: c == CONTROL && me == D && thief -> d_step { thief = false; on_proved() }

        /* resume_failed(): the destination's gate rejects what has ended. Page: "REJECTION". */
        :: c == CONTROL && me == S && !mine.over && !mine.control && session[D].over ->
            d_step {
                channels_are_complete(me);
                if
                :: session[D].result == CANCELLED -> end_with(CANCELLED, false)
                :: session[D].result != CANCELLED && complete -> end_with(DONE, false)
                :: else -> end_with(INTERRUPTED, false)
                fi
            }

        /* on_network_timeout(): page, "The loss". Without GIVE_UP the network comes back in time. */
        :: c == CONTROL && mine.timer == RESUME && may_give_up -> give_up = true
#ifdef CANCEL
        /* on_end(). Page: "ABORT". */
        :: c == CONTROL && !mine.over && !mine.farewell ->
            d_step {
                if
                :: me == S && mine.met && !mine.greeted ->
                    mine.farewell = true;
                    mine.timer = OFF;
                    for (i : 0 .. CHANNELS - 1) {
                        channel_give_up(i)
                    }
                :: else -> end_with(CANCELLED, true)
                fi
            }
#endif
        /* Nothing happens any more: that may only be where QEMU has yet to connect again, in place of what was given
         * up. on_recovery_timeout(), or whoever waits for it, ends that. */
        :: c == CONTROL && timeout && !mine.over && session[S].timer != RESUME && session[D].timer != RESUME ->
            d_step {
                channels_are_complete(S);
                whole = complete;
                channels_are_complete(D);
                assert(!(whole && complete)); /* else they had only to say so */
                for (i : 0 .. CHANNELS - 1) {
                    assert(my(i).stage != LIVES)
                }
                end_with(INTERRUPTED, false)
            }
        fi;
        d_step { after() }
    }
    :: mine.over -> break
    od;
#if !defined(CANCEL) && GIVE_UP == 0 && !defined(ZERO) && LIES == 0
    assert(mine.result == DONE || !session[S].met) /* a network that comes back in time costs nothing */
#endif
}

inline restart_broker(side)
{
    printf("A broker is restarted: that of %d\n", side);
    for (i : 0 .. CHANNELS - 1) {
        ch(i, side).need = false
    }
    session[side].need = false;
    session[side].unsynced = true;
    restarts--
}

#define can_be_lost(c) (link[c] != NONE && !gone[c])

/* A connection of a channel is lost, with what is on its way. */
inline lose_channel(c)
{
    printf("The connection of channel %d is lost\n", c);
    gone[c] = true;
    do
    :: nempty(data[2 * c]) -> data[2 * c]?_
    :: nempty(data[2 * c + 1]) -> data[2 * c + 1]?_
    :: empty(data[2 * c]) && empty(data[2 * c + 1]) -> break
    od;
    losses--
}

#define slips_in(side) (lies > 0 && session[side].control && session[side].greeted && \
    nfull(wire[2 * session[side].conn + 1 - side]))
inline slip_in(side, t, o)
{
    printf("A false frame for the other of %d: %e\n", 1 - side, t);
    lies--;
    wire[2 * session[side].conn + 1 - side]!t, 0, 0, o
}

/* What happens between the sides, and to their brokers. */
proctype World()
{
end:
    do
    :: losses > 0 && session[S].control && !cut[session[S].conn] ->
        d_step { printf("The control connection is lost\n"); losses--; cut[session[S].conn] = true }
#if defined(CANCEL) || LIES > 0
    /* An ABORT, too. All else that is on its way is as good as lost where a side notices the loss at once. */
    :: losses > 0 && session[S].control && !cut[session[S].conn] ->
        d_step {
            printf("The control connection is lost, with all on its way\n");
            v = session[S].conn;
            cut[v] = true;
            drain(wire[2 * v]);
            drain(wire[2 * v + 1]);
            losses--
        }
#endif
    :: losses > 0 && can_be_lost(0) -> d_step { lose_channel(0) }
#if CHANNELS > 1
    :: losses > 0 && can_be_lost(1) -> d_step { lose_channel(1) }
#endif
#if CHANNELS > 2
    :: losses > 0 && can_be_lost(2) -> d_step { lose_channel(2) }
#endif
#if RESTARTS > 0
    :: restarts > 0 && !session[S].over && !session[S].unsynced -> d_step { restart_broker(S) }
    :: restarts > 0 && !session[D].over && !session[D].unsynced -> d_step { restart_broker(D) }
#endif
#ifdef THIEF
    :: thieves > 0 && session[D].adopted && !session[D].over -> d_step { thieves--; thief = true }
#endif
#if LIES > 0
    :: slips_in(S) -> d_step { slip_in(S, ACK, 9) }
    :: slips_in(D) -> d_step { slip_in(D, ACK, 9) }
    :: slips_in(D) -> d_step { slip_in(D, OPEN, 0) }
    :: slips_in(D) && ch(0, D).received > 0 -> d_step { slip_in(D, FIN, 0) }
    :: slips_in(S) -> d_step { slip_in(S, CLOSE, 0) }
    :: slips_in(D) -> d_step { slip_in(D, CLOSE, 0) }
    :: slips_in(D) -> d_step { slip_in(D, CLOSE_ALL, 0) }
#endif
    od
}

init
{
    atomic {
        session[S].timer = OFF;
        session[D].timer = OFF;
        session[S].need = true;
        for (j : 0 .. CHANNELS - 1) {
            link[j] = NONE;
            ch(j, S).stage = NEVER;
            ch(j, D).stage = NEVER
        }
        run World();
        for (j : 0 .. CONTROL) {
            run Side(S, j);
            run Side(D, j)
        }
    }
}
