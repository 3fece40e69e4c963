/* SPDX-License-Identifier: LGPL-2.1-or-later */
"use strict";

/*
 * The migrations of this host, as org.vmferry.Broker1(5) tells of them. Nothing is polled: objects come and go by
 * ObjectManager's signals, and each change by PropertiesChanged. A timer runs only while a countdown is shown.
 *
 * Names, reasons and tickets are from others: they become text nodes and arguments behind "--", never markup or options.
 */
const _ = cockpit.gettext;
const NAME = "org.vmferry.Broker1", ROOT = "/org/vmferry/Broker1", MIGRATION = "org.vmferry.Migration1";
const PROPERTIES = "org.freedesktop.DBus.Properties", MANAGER = "org.freedesktop.DBus.ObjectManager";
const EXPIRE = 15 * 60; /* s that a ticket of this page lives */

const PHASES = {
    "setup": _("Setting up"), "pre-copy": _("Copying memory"), "switchover": _("Handing over"),
    "post-copy": _("Post-copy: runs at the destination"), "paused": _("Post-copy is paused"),
    "recovering": _("Recovering post-copy"), "finishing": _("Finishing"),
};
const STATES = { waiting: _("Waiting for the other host"), connected: _("Connected"), active: _("Active") };
const ENDS = {
    "moved": _("Moved"), "not-moved": _("Not moved"), "lost": _("Lost"), "unknown": _("Unknown"),
    "done": _("Carried"), "failed": _("Failed"), "cancelled": _("Cancelled"), "timed-out": _("Timed out"),
};
const END_COLOURS = { "moved": "good", "done": "good", "lost": "bad", "failed": "bad", "unknown": "warn" };

const migrations = new Map(); /* by object path: its properties, and its card or row */
const permission = cockpit.permission({ admin: true });
const bus = cockpit.dbus(NAME, { bus: "system", superuser: "try" });
let page, me = null, ticking = null; /* me: the uid of who looks */

/* ---- Elements and texts ---- */

function el(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
        if (typeof value === "function")
            element.addEventListener(name, value);
        else if (value !== false && value !== undefined)
            element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter(child => child !== null && child !== undefined));
    return element;
}

function bytes(n) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    for (; n >= 1024 && unit < units.length - 1; unit++)
        n /= 1024;
    return `${n.toLocaleString(undefined, { maximumFractionDigits: n < 10 && unit ? 1 : 0 })} ${units[unit]}`;
}

function span(usec) {
    const s = usec / 1e6;
    if (usec < 1000)
        return `${usec} µs`;
    if (s < 1)
        return `${Math.round(usec / 1000)} ms`;
    if (s < 60)
        return `${s.toLocaleString(undefined, { maximumFractionDigits: s < 10 ? 1 : 0 })} s`;
    return s < 3600 ? `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s` : `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
}

const clock = seconds => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds) % 60).padStart(2, "0")}`;
const host = peer => peer.replace(/^tcp:/, "").replace(/:\d+$/, "").replace(/^unix:.*/, _("this host, or by ssh"));
const button = (label, kind, action, more) => el("button", { type: "button", class: kind, click: action, ...more }, label);

/* ---- What may be done ---- */

/* Each user may do what they like with their own. */
const may_change = m => permission.allowed || m.OwnerUid === me;

/* Why it may not be cancelled, or null. In post-copy each host has a part of the guest, and only one of them may run it. */
function cancel_refused(m) {
    if (m.Role === "incoming" && m.State === "waiting")
        return null;
    switch (m.Phase) {
    case "setup": case "pre-copy": return null;
    case "": return m.State === "waiting" || m.State === "connected" ? null
        : _("Only QEMU knows whether that would lose the VM: use 'vmferryctl cancel --qmp='.");
    case "switchover": return _("The VM is being handed over: it could run on both hosts.");
    case "finishing": return _("It is at its end.");
    default: return _("In post-copy neither host has the whole VM: to cancel would lose it.");
    }
}

/* ---- A migration that runs ---- */

function running_card(path, m) {
    const card = {};
    const fact = label => {
        const value = el("dd");
        card.facts.append(el("div", {}, el("dt", {}, label), value));
        return value;
    };
    card.facts = el("dl", { class: "facts" });
    card.phase = el("span", { class: "phase", "aria-live": "polite" });
    card.left = el("span", { class: "left" });
    card.bar = el("progress", { max: 1, "aria-label": cockpit.format(_("Progress of $0"), m.Vm) });
    card.peer = el("span", { class: "peer" });
    card.note = el("p", { class: "note" });
    card.rate = fact(_("Rate"));
    card.limit = fact(_("Limit"));
    card.round = fact(_("Pass"));
    card.reconnects = fact(_("Reconnects"));
    card.limiter = button(_("Limit…"), "secondary limit", () => limit_dialog(path, m));
    card.cancel = button(_("Cancel…"), "danger cancel", () => cancel_dialog(path, m));
    card.why = el("span", { class: "why", id: `why${path.replaceAll("/", "-")}` });
    card.cancel.setAttribute("aria-describedby", card.why.id);
    card.actions = el("div", { class: "actions" }, m.Role === "outgoing" ? card.limiter : null, card.cancel, card.why);
    card.details = el("details", { toggle: () => show_details(m) }, el("summary", {}, _("Details")), el("div"));
    card.root = el("article", { class: "card", "data-vm": m.Vm, "data-role": m.Role },
        el("header", {}, el("h3", {}, m.Vm), el("span", { class: "badge" }, m.Role === "outgoing" ? _("leaves") : _("arrives")), card.peer),
        el("div", { class: "line" }, card.phase, card.left), card.bar, card.note, card.facts, card.actions, card.details);
    return card;
}

function update_card(m) {
    const card = m.card, details = m.Details, interrupted = m.State === "interrupted", refused = cancel_refused(m);
    const percent = m.Progress >= 0 ? `${Math.floor(m.Progress * 100)} %` : "";
    const left = details["memory-remaining"] ? cockpit.format(_("$0 left"), bytes(details["memory-remaining"])) : "";
    const time = m.RemainingUsec ? cockpit.format(_("about $0"), span(m.RemainingUsec)) : "";

    card.root.classList.toggle("interrupted", interrupted);
    card.root.dataset.state = m.State;
    card.root.dataset.phase = m.Phase;
    if (m.Peer) /* it is empty while the network is lost */
        card.peer.textContent = (m.Role === "outgoing" ? "→ " : "← ") + host(m.Peer);
    card.phase.textContent = interrupted ? _("Interrupted: the network is lost") : PHASES[m.Phase] || STATES[m.State] || m.State;
    card.left.textContent = [percent, left, time].filter(Boolean).join(" · ");
    if (m.Progress >= 0)
        card.bar.value = m.Progress;
    else
        card.bar.removeAttribute("value");
    card.rate.textContent = details.rate && !interrupted ? `${bytes(details.rate)}/s` : "–";
    card.limit.textContent = m.BandwidthLimit ? `${bytes(m.BandwidthLimit)}/s` : _("none");
    card.round.textContent = details.pass || "–";
    card.reconnects.textContent = m.Reconnects;
    card.actions.hidden = !may_change(m);
    card.cancel.disabled = refused !== null;
    card.why.textContent = refused || "";
    if (!interrupted)
        card.note.textContent = "";
    show_details(m);
    tick();
}

/* Channels and counters are of the moment: they are read when they are opened, and again with what is signalled. */
function show_details(m) {
    if (m.card && m.card.details.open)
        read_details(m.path, m.card.details.lastChild);
}

function read_details(path, place) {
    bus.call(path, PROPERTIES, "GetAll", [MIGRATION]).then(([all]) => place.replaceChildren(...details_of(plain(all))),
        () => place.replaceChildren(_("It is no longer there.")));
}

function details_of(m) {
    const pair = (name, value) => [el("dt", {}, name), el("dd", {}, value)];
    const journal = (label, match) => button(label, "link journal",
        () => cockpit.jump(`/system/logs#/?prio=debug&${match}`, cockpit.transport.host));
    const rows = m.Channels.map(([stream, number, sent, received, state]) =>
        el("tr", {}, ...[stream, number, bytes(sent), bytes(received), state].map(text => el("td", {}, String(text)))));
    return [
        el("dl", { class: "pairs" },
            ...pair(_("Id"), m.Id), ...pair(_("Security"), m.Security), ...pair(_("Peer"), m.Peer || "–"),
            ...pair(_("Owner (uid)"), String(m.OwnerUid)), ...pair(_("Began"), new Date(m.StartedUsec / 1000).toLocaleString()),
            ...pair(_("Round trip"), m.RoundTripUsec ? span(m.RoundTripUsec) : "–"), ...pair(_("Reconnects"), String(m.Reconnects)),
            ...pair(_("Sent, received"), `${bytes(m.BytesSent)}, ${bytes(m.BytesReceived)}`),
            ...pair(_("Helper"), m.HelperUnit ? journal(m.HelperUnit, `service=${encodeURIComponent(m.HelperUnit)}`) : "–"),
            ...pair(_("Journal"), journal(_("All that is said of this migration"), `VMFERRY_MIGRATION=${m.Id}`))),
        el("table", { class: "channels" },
            el("thead", {}, el("tr", {}, ...[_("Stream"), _("Channel"), _("Sent"), _("Received"), _("State")].map(name => el("th", { scope: "col" }, name)))),
            el("tbody", {}, ...rows))];
}

/* ---- One that is finished ---- */

function finished_row(path, m) {
    const end = m.Outcome || m.Result, details = m.Details;
    const cells = [
        [_("VM"), m.Vm], [_("Direction"), (m.Role === "outgoing" ? "→ " : "← ") + (m.Peer ? host(m.Peer) : "")],
        [_("Outcome"), el("span", { class: `end ${END_COLOURS[end] || ""}` }, ENDS[end] || end)],
        [_("Downtime"), details["downtime-usec"] ? span(details["downtime-usec"]) : "–"],
        [_("Took"), span(m.FinishedUsec - m.StartedUsec)], [_("Ended"), new Date(m.FinishedUsec / 1000).toLocaleTimeString()],
        [_("Reason"), details.reason || m.ErrorMessage || "–"],
    ];
    return el("tr", { "data-vm": m.Vm, "data-role": m.Role, "data-outcome": end },
        ...cells.map(([label, value]) => el("td", { "data-label": label, class: label === _("Reason") || label === _("VM") ? "text" : undefined }, value)),
        el("td", {}, el("span", {}, button(_("Details"), "link", () => details_dialog(path, m)),
            may_change(m) ? button(_("Remove"), "link", () => bus.call(path, MIGRATION, "Forget", []).catch(failed)) : null)));
}

/* ---- All of them ---- */

function show(path) {
    const m = migrations.get(path);
    if (m.State === "finished") {
        const row = finished_row(path, m);
        if (m.card)
            m.card.root.remove();
        if (m.row)
            m.row.replaceWith(row);
        else
            page.finished.prepend(row);
        Object.assign(m, { row, card: null });
    } else {
        if (!m.card) {
            m.card = running_card(path, m);
            page.running.append(m.card.root);
        }
        update_card(m);
    }
    page.none.hidden = page.running.childElementCount > 0;
    page.history.hidden = page.finished.childElementCount === 0;
}

function forget(path) {
    const m = migrations.get(path);
    if (m) {
        (m.card ? m.card.root : m.row).remove();
        migrations.delete(path);
        page.none.hidden = page.running.childElementCount > 0;
        page.history.hidden = page.finished.childElementCount === 0;
    }
}

/* Of variants the values; of Details as well. */
function plain(properties) {
    const values = {};
    for (const [name, variant] of Object.entries(properties))
        values[name] = name === "Details" ? plain(variant.v) : variant.v;
    return values;
}

function add(path, interfaces) {
    if (!(MIGRATION in interfaces))
        return;
    forget(path);
    migrations.set(path, { path, ...plain(interfaces[MIGRATION]) });
    show(path);
}

function follow() {
    bus.subscribe({ interface: MANAGER, path: ROOT }, (from, iface, signal, [path, what]) => {
        if (signal === "InterfacesAdded")
            add(path, what);
        else if (signal === "InterfacesRemoved")
            forget(path);
    });
    bus.subscribe({ interface: PROPERTIES, member: "PropertiesChanged", path_namespace: ROOT }, (path, iface, signal, [name, changed]) => {
        if (name === MIGRATION && migrations.has(path)) {
            Object.assign(migrations.get(path), plain(changed));
            show(path);
        }
    });
    /* A broker that has nothing to do ends, and is there again with the next call of anybody. */
    bus.addEventListener("owner", (event, owner) => {
        if (!owner) {
            [...migrations.keys()].forEach(forget);
            return;
        }
        bus.call(ROOT, MANAGER, "GetManagedObjects", []).then(([objects]) => {
            Object.entries(objects).sort(([, a], [, b]) => began(a) - began(b)).forEach(([path, interfaces]) => add(path, interfaces));
            page.trouble.hidden = true;
        }, failed);
    });
    bus.addEventListener("close", (event, options) => failed(options));
}

const began = interfaces => MIGRATION in interfaces ? interfaces[MIGRATION].StartedUsec.v : 0;

function failed(error) {
    page.trouble.textContent = error.problem === "not-found" ? _("vmferry is not installed here, or its broker does not start.")
        : error.message || error.problem || String(error);
    page.trouble.hidden = false;
}

/* The time that is left of interruptions, each second while there is one. */
function tick() {
    let any = false;
    for (const m of migrations.values()) {
        if (m.card && m.State === "interrupted") {
            const left = Math.max(0, (m.GivesUpUsec || 0) / 1e6 - Date.now() / 1000);
            m.card.note.textContent = left > 0 ? cockpit.format(_("QEMU waits. Its connections are given up in $0."), clock(left))
                : _("QEMU's connections are given up. A post-copy can be recovered.");
            any = any || left > 0;
        }
    }
    if (any && ticking === null)
        ticking = window.setInterval(tick, 1000);
    else if (!any && ticking !== null) {
        window.clearInterval(ticking);
        ticking = null;
    }
}

/* ---- The page ---- */

/* Light or dark, as Cockpit's own pages find it out. */
function follow_theme() {
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    const apply = style => {
        style = style || localStorage.getItem("shell:style") || "auto";
        document.documentElement.classList.toggle("dark", style === "dark" || (style === "auto" && dark.matches));
    };
    window.addEventListener("storage", event => event.key === "shell:style" && apply());
    window.addEventListener("cockpit-style", event => apply(event.detail && event.detail.style));
    dark.addEventListener("change", () => apply());
    apply();
}

function build() {
    const actions = [[_("Migrate"), "primary", migrate_dialog], [_("Send"), "secondary", send_dialog],
        [_("Receive"), "secondary", receive_dialog], [_("Check a host"), "secondary", check_dialog]]
        .map(([label, kind, action]) => button(label, kind, action));
    const columns = [_("VM"), _("Direction"), _("Outcome"), _("Downtime"), _("Took"), _("Ended"), _("Reason"), ""];
    page = {
        actions: el("nav", { "aria-label": _("Actions"), hidden: true }, ...actions),
        limited: el("p", { class: "alert", id: "limited", hidden: true },
            _("Without administrative access you see all migrations, and can limit and cancel only your own.")),
        trouble: el("p", { class: "alert bad", role: "alert", hidden: true }),
        running: el("div", { id: "running" }),
        none: el("p", { class: "card empty" }, _("No migration runs.")),
        finished: el("tbody", { id: "finished" }),
    };
    page.history = el("section", { hidden: true, class: "card" }, el("h2", {}, _("Finished")),
        el("table", { class: "history" }, el("thead", {}, el("tr", {}, ...columns.map(name => el("th", { scope: "col" }, name)))), page.finished));
    document.title = _("VM migrations");
    document.getElementById("page").append(
        el("header", { class: "top" }, el("h1", {}, _("VM migrations")), page.actions), page.limited,
        page.trouble, page.running, page.none, page.history);
}

function follow_permission() {
    let before = permission.allowed;
    const apply = () => {
        if (typeof before === "boolean" && permission.allowed !== before)
            window.location.reload(); /* the connection to the bus has other rights now */
        before = permission.allowed;
        page.actions.hidden = !permission.allowed;
        page.limited.hidden = permission.allowed !== false;
        for (const path of migrations.keys())
            show(path);
    };
    permission.addEventListener("changed", apply);
    cockpit.user().then(user => {
        me = user.id;
        apply();
    });
    apply();
}

follow_theme();
build();
follow_permission();
follow();
