/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/options.h"

#include <stddef.h>
#include <string.h>

#define V(name) (1U << VERB_##name)
#define ALL     OPTION_ALL_VERBS
#define DRIVE   (V(RECEIVE) | V(SEND) | V(MIGRATE))

/* Of org.vmferry.Migration1; a test holds them against its XML. */
#define PROPERTIES                                                                                          \
    "Id Vm Role Security OwnerUid Sockets StartedUsec State Result ErrorName ErrorMessage Peer HelperUnit " \
    "FinishedUsec GivesUpUsec BandwidthLimit BytesSent BytesReceived Rate Channels RoundTripUsec "          \
    "Reconnects Outcome "                                                                                   \
    "Phase Progress RemainingUsec Details"

const struct verb_rule verb_rules[VERB_MAX_] = {
    [VERB_LIST] = {"list", "", 0, 0, "the migrations of this host"},
    [VERB_STATUS] = {"status", "[MIGRATION…]", 0, 64, "all about them; without one: the broker"},
    [VERB_SHOW] = {"show", "[MIGRATION…]", 0, 64, "their properties, for scripts"},
    [VERB_WATCH] = {"watch", "[MIGRATION]", 0, 1, "its progress, until it is finished; or all of them"},
    [VERB_WAIT] = {"wait", "MIGRATION…", 1, 64, "return when they are finished"},
    [VERB_CANCEL] = {"cancel", "MIGRATION…", 1, 64, "end them on both hosts"},
    [VERB_LIMIT] = {"limit", "MIGRATION RATE", 2, 2, "bytes/s it may take of QEMU: 100M; 0: no limit"},
    [VERB_FORGET] = {"forget", "MIGRATION…", 1, 64, "remove finished ones from the list",
                     MIGRATIONS_FINISHED},
    [VERB_RECEIVE] = {"receive", "VM", 1, 1, "at the destination: expect VM, print the ticket"},
    [VERB_SEND] = {"send", "VM", 1, 1, "at the source: take the ticket, and move VM"},
    [VERB_MIGRATE] = {"migrate", "VM HOST", 1, 2, "both of it: move VM to HOST, over ssh"},
    [VERB_TUNNEL] = {"tunnel", "VM HOST [COMMAND…]", 2, 250, "only the tunnel for it, for virsh and others"},
    [VERB_CHECK] = {"check", "[HOST]", 0, 1, "what would stop a migration (to HOST)"},
    [VERB_METRICS] = {"metrics", "", 0, 0, "figures for Prometheus"},
    [VERB_STDIO] = {"stdio", "WHAT [ARGUMENT…]", 1, 3, NULL},
};

const struct option_rule option_rules[OPTION_MAX_] = {
    [OPTION_HOST] = {"host", 'H', "[USER@]HOST", ALL, "the broker of that host, over ssh", VALUES_HOSTS},
    [OPTION_USER] = {"user", 0, NULL, ALL, "the user's broker, not the system's"},
    [OPTION_ADDRESS] = {"address", 0, "ADDRESS", ALL, "the broker on this D-Bus"},
    [OPTION_JSON] = {"json", 0, "MODE", ALL, "as JSON", "short pretty seq off"},
    [OPTION_J] = {NULL, 'j', NULL, ALL, "as JSON, as fits stdout"},
    [OPTION_QUIET] = {"quiet", 'q', NULL, ALL, "no progress, no hints"},
    [OPTION_VERBOSE] = {"verbose", 0, NULL, ALL, "say each step, and what QEMU is told"},
    [OPTION_NO_LEGEND] = {"no-legend", 0, NULL, ALL, "no headings and no counts"},
    [OPTION_NO_PAGER] = {"no-pager", 0, NULL, ALL, "do not page long output"},
    [OPTION_NO_ASK_PASSWORD] = {"no-ask-password", 0, NULL, ALL, "never ask for a password"},
    [OPTION_HELP] = {"help", 'h', NULL, ALL, "show a summary"},
    [OPTION_VERSION] = {"version", 'V', NULL, ALL, "show the version"},
    [OPTION_PROPERTY] = {"property", 'p', "NAME", V(SHOW), "only this one; may be given again", PROPERTIES,
                         true},
    [OPTION_VALUE] = {"value", 0, NULL, V(SHOW), "values without their names"},
    [OPTION_FORCE] = {"force", 0, NULL, V(CANCEL), "even if that can lose the guest"},
    [OPTION_TIMEOUT] = {"timeout", 0, "TIME", V(WAIT), "give up after this long"},
    [OPTION_NOTIFY] = {"notify", 0, "[TIME]", V(WATCH), "tell the desktop of ends and long interruptions"},
    [OPTION_QMP] = {"qmp", 0, "SOCKET", DRIVE | V(CANCEL), "QEMU's monitor: drive it, too", VALUES_FILES},
    [OPTION_DST_QMP] = {"dst-qmp", 0, "SOCKET", V(MIGRATE), "that of the QEMU at HOST", VALUES_FILES},
    [OPTION_SSH] = {"ssh", 0, NULL, V(MIGRATE), "QEMU's bytes go through ssh as well"},
    [OPTION_POSTCOPY] = {"postcopy", 0, "[WHEN]", DRIVE, "now; or WHEN: a TIME from now, 'auto'", "auto"},
    [OPTION_MULTIFD] = {"multifd", 0, "N", DRIVE, "pre-copy over N connections at once"},
    [OPTION_RESUME] = {"resume", 0, NULL, DRIVE, "recover a post-copy that is paused"},
    [OPTION_PAUSED] = {"paused", 0, NULL, DRIVE, "the VM is to be paused at the destination"},
    [OPTION_BACKGROUND] = {"background", 0, NULL, V(MIGRATE), "as a service of systemd's", .brief = true},
    [OPTION_ATTACH] = {"attach", 0, NULL, V(MIGRATE), "take over one whose vmferryctl has ended",
                       .brief = true},
    [OPTION_DRY_RUN] = {"dry-run", 0, NULL, V(MIGRATE), "look, and say what would be done", .brief = true},
    [OPTION_BANDWIDTH] = {"bandwidth", 0, "RATE", V(SEND) | V(MIGRATE),
                          "bytes/s QEMU may send (default: no limit)"},
    [OPTION_DOWNTIME_LIMIT] = {"downtime-limit", 0, "TIME", V(SEND) | V(MIGRATE),
                               "how long the VM may stand still"},
    [OPTION_TICKET_FILE] = {"ticket-file", 0, "FILE", V(SEND), "where the ticket is (default -: stdin)",
                            VALUES_FILES},
    [OPTION_SECURITY] = {"security", 0, "WHICH", DRIVE | V(TUNNEL), "tls or plain (default tls)",
                         "tls plain"},
    [OPTION_SOCKET] = {"socket", 0, "PATH", V(RECEIVE) | V(SEND), "where QEMU's socket is to be",
                       VALUES_FILES},
    [OPTION_SOCKET_OWNER] = {"socket-owner", 0, "USER", DRIVE | V(TUNNEL), "whose QEMU's socket is",
                             VALUES_USERS},
    [OPTION_ENDPOINT] = {"endpoint", 0, "ENDPOINT", DRIVE | V(TUNNEL), "where to reach the destination", NULL,
                         true},
    [OPTION_EXPIRE] = {"expire", 0, "TIME", DRIVE | V(TUNNEL), "how long to wait for the other host (60)"},
    [OPTION_RESUME_TIMEOUT] = {"resume-timeout", 0, "TIME", DRIVE | V(TUNNEL),
                               "how long to outlive a lost network (60)", NULL},
    [OPTION_OUTPUT] = {"output", 'o', "FILE", V(METRICS), "write there, all at once", VALUES_FILES},
    [OPTION_OPENMETRICS] = {"openmetrics", 0, NULL, V(METRICS), "in that format, not in Prometheus' own"},
    [OPTION_ALL] = {"all", 'a', NULL, V(LIST), "finished ones, too"},
    [OPTION_COLUMNS] = {"columns", 0, "NAMES", V(LIST), "only these, with commas: VM,STATE,ID"},
    [OPTION_DISKS] = {"disks", 0, "[DISKS]", V(SEND) | V(MIGRATE) | V(TUNNEL),
                      "copy the VM's disks, too; or these: vda,vdb"},
    [OPTION_CONNECT] = {"connect", 0, "URI", V(SEND) | V(MIGRATE) | V(CANCEL),
                        "libvirt's (default qemu:///system)", .brief = true},
    [OPTION_RPC] = {"rpc", 0, "WAY", V(MIGRATE), "of libvirt's calls: tunnel or ssh", "tunnel ssh",
                    .brief = true},
    [OPTION_LIBVIRT] = {"libvirt", 0, NULL, V(RECEIVE) | V(SEND) | V(TUNNEL), "for a domain of libvirt"},
    [OPTION_NAME] = {"name", 0, "NAME", V(SEND) | V(MIGRATE) | V(TUNNEL),
                     "the domain's name at the destination", .brief = true},
    [OPTION_TEMPORARY] = {"temporary", 0, NULL, V(SEND) | V(MIGRATE),
                          "the definition does not move with the VM", .brief = true},
    [OPTION_UNSAFE] = {"unsafe", 0, NULL, V(SEND) | V(MIGRATE), "even if libvirt takes it for unsafe",
                       .brief = true},
    [OPTION_AUTO_CONVERGE] = {"auto-converge", 0, NULL, V(SEND) | V(MIGRATE),
                              "slow the VM down if it changes too fast", .brief = true},
    [OPTION_DOMAIN] = {"domain", 0, "DOMAIN", V(CHECK), "whether this one of libvirt's can run there"},
};

bool option_takes_none_or_one(const struct option_rule *rule)
{
    return rule->argument && rule->argument[0] == '[' && rule->argument[strlen(rule->argument) - 1] == ']';
}
