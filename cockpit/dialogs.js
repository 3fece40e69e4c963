/* SPDX-License-Identifier: LGPL-2.1-or-later */
"use strict";

/* What is asked before something is done, and the calls that do it. Before vmferry.js, whose names it uses when a button is
 * pressed. */

/* A modal dialog; act(dialog) returns a promise, which closes it (unless it comes to true), or whose error is shown. */
function dialog(title, body, verb, act, kind = "primary") {
    const trouble = el("p", { class: "alert bad", role: "alert", hidden: true });
    const submit = el("button", { type: "submit", class: kind }, verb || "");
    const close = button(verb ? _("Back") : _("Close"), "secondary", () => box.close());
    const form = el("form", { method: "dialog", submit: event => {
        event.preventDefault();
        trouble.hidden = true;
        submit.disabled = true;
        submit.classList.add("busy");
        act(box).then(keep => keep === true || box.close(), error => {
            trouble.textContent = error.message || error.problem || String(error);
            trouble.hidden = false;
        }).finally(() => {
            submit.disabled = false;
            submit.classList.remove("busy");
        });
    } }, el("h2", {}, title), ...body, trouble, el("footer", {}, verb ? submit : null, close));
    const box = el("dialog", { close: () => box.remove(), "aria-label": title }, form);
    document.body.append(box);
    box.showModal();
    return box;
}

function field(name, label, more, hint) {
    const input = el("input", { id: `field-${name}`, name, autocomplete: "off", spellcheck: "false", ...more });
    return more.type === "checkbox" ? el("label", { class: "check" }, input, label)
        : el("div", { class: "field" }, el("label", { for: input.id }, label), input, hint ? el("small", {}, hint) : null);
}

const value = (box, name) => box.querySelector(`[name=${name}]`).value.trim();
const checked = (box, name) => box.querySelector(`[name=${name}]`).checked;

function limit_dialog(path, m) {
    dialog(cockpit.format(_("Limit $0"), m.Vm),
        [field("rate", _("MiB per second"), { type: "number", min: 0, step: "any", value: m.BandwidthLimit ? m.BandwidthLimit / 1048576 : "" },
            _("0 or nothing: no limit"))],
        _("Limit"), box => bus.call(path, PROPERTIES, "Set",
            [MIGRATION, "BandwidthLimit", cockpit.variant("t", Math.round(Number(value(box, "rate")) * 1048576))]));
}

function cancel_dialog(path, m) {
    dialog(cockpit.format(_("Cancel the migration of $0?"), m.Vm), [el("p", {}, _("The VM runs on at the source."))],
        _("Cancel the migration"), () => bus.call(path, PROPERTIES, "GetAll", [MIGRATION]).then(([all]) => {
            const refused = cancel_refused(plain(all)); /* it may have gone on while somebody read this */
            if (refused)
                throw new Error(refused);
            return bus.call(path, MIGRATION, "Cancel", []);
        }), "danger");
}

function details_dialog(path, m) {
    const place = el("div");
    dialog(m.Vm, [place]);
    read_details(path, place);
}

/* The VMs that run here: name, and the monitor where it is not libvirt's. */
async function find_vms() {
    const run = argv => cockpit.spawn(argv, { superuser: "try", err: "ignore" }).then(text => text.split("\n").filter(Boolean), () => []);
    const [sockets, domains] = await Promise.all([
        run(["find", "-L", "/run/qemu", "-maxdepth", "1", "-type", "s", "-name", "*.qmp"]),
        run(["virsh", "--quiet", "--connect=qemu:///system", "list", "--name"])]);
    return [...sockets.map(path => ({ name: path.replace(/.*\//, "").replace(/\.qmp$/, ""), qmp: path })),
        ...domains.map(name => ({ name: name.trim(), qmp: "" }))];
}

function vm_fields(qmp_hint) {
    const list = el("datalist", { id: "vms" });
    const name = field("vm", _("VM"), { required: true, list: "vms" }), qmp = field("qmp", _("QEMU's monitor (QMP socket)"), {}, qmp_hint);
    find_vms().then(vms => {
        list.append(...vms.map(vm => el("option", { value: vm.name }, vm.qmp || "libvirt")));
        name.querySelector("input").addEventListener("input", event => {
            const found = vms.find(vm => vm.name === event.target.value);
            if (found) {
                qmp.querySelector("input").value = found.qmp;
                qmp.querySelector("input").dispatchEvent(new Event("input"));
            }
        });
        list.dataset.ready = "";
    });
    return [name, list, qmp];
}

/* vmferryctl's options of these fields: those of which something was said. */
function options(box, ...names) {
    return names.map(name => {
        const input = box.querySelector(`[name=${name}]`);
        return input.type === "checkbox" ? input.checked && `--${name}` + (input.value === "on" ? "" : `=${input.value}`)
            : input.value.trim() && `--${name}=${input.value.trim()}`;
    }).filter(Boolean);
}

/* What must not end with this page runs as a service of systemd's. */
const SERVICE = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", "--property=KillMode=process", "--"];
const spawn = (argv, err) => cockpit.spawn(argv, { superuser: "require", err: err || "message" });

function migrate_dialog() {
    const box = dialog(_("Migrate a VM"), [
        ...vm_fields(_("Empty: a domain of libvirt")),
        field("host", _("To host"), { required: true, placeholder: "root@host2" }, _("By ssh, with a key of root's")),
        field("dst-qmp", _("QEMU's monitor there"), {}),
        field("bandwidth", _("At most MiB per second"), { type: "number", min: 1, step: 1, placeholder: _("no limit") }),
        field("postcopy", _("Post-copy, where memory changes faster than it can be sent"), { type: "checkbox", value: "auto" }),
        field("disks", _("Copy its disks, too"), { type: "checkbox" }),
    ], _("Migrate"), () => {
        const said = options(box, "qmp", "dst-qmp", "postcopy", "disks");
        if (value(box, "bandwidth"))
            said.push(`--bandwidth=${value(box, "bandwidth")}M`);
        return spawn(["vmferryctl", "migrate", "--background", "--no-ask-password", ...said, "--", value(box, "vm"), value(box, "host")], "out")
            .then(() => false, (error, text) => explain(text, error));
    });
    box.querySelector("[name=qmp]").addEventListener("input", event => { box.querySelector("[name=dst-qmp]").value = event.target.value; });
}

/* Why a service did not begin is in the journal: vmferryctl says under which name. */
async function explain(text, error) {
    const [, unit] = /-u (vmferry-[a-z0-9-]+)/.exec(text || "") || [];
    const said = unit && await spawn(["journalctl", "--output=cat", "--lines=12", "--identifier=vmferryctl", `--unit=${unit}`]).catch(() => "");
    throw new Error((said || text || error.message).trim().split("\n").slice(-3).join("\n"));
}

function send_dialog() {
    const box = dialog(_("Send a VM"), [
        ...vm_fields(_("Empty: a domain of libvirt")),
        el("div", { class: "field" }, el("label", { for: "field-ticket" }, _("Ticket from the other host")),
            el("textarea", { id: "field-ticket", name: "ticket", rows: 4, required: true, spellcheck: "false" })),
        field("postcopy", _("Post-copy, where memory changes faster than it can be sent"), { type: "checkbox", value: "auto" }),
    ], _("Send"), () => new Promise((resolve, reject) => {
        const said = value(box, "qmp") ? options(box, "qmp", "postcopy") : ["--libvirt", ...options(box, "postcopy")];
        const sending = spawn([...SERVICE, "vmferryctl", "send", "--quiet", "--no-ask-password", "--ticket-file=-", ...said, "--", value(box, "vm")]);
        sending.input(`${value(box, "ticket")}\n`);
        sending.then(() => resolve(false), reject);
    }));
}

function receive_dialog() {
    const box = dialog(_("Receive a VM"), [
        ...vm_fields(_("Of a QEMU that waits (-incoming defer). Empty: a domain of libvirt")),
        field("postcopy", _("Post-copy"), { type: "checkbox" }),
    ], _("Make a ticket"), () => new Promise((resolve, reject) => {
        const said = value(box, "qmp") ? options(box, "qmp", "postcopy") : ["--libvirt", ...options(box, "postcopy")];
        let text = "";
        const receiving = spawn([...SERVICE, "vmferryctl", "receive", "--quiet", "--no-ask-password", `--expire=${EXPIRE}`, ...said, "--", value(box, "vm")]);
        receiving.stream(data => {
            text += data;
            if (text.includes("\n")) {
                ticket_dialog(value(box, "vm"), text.split("\n")[0]);
                resolve(false);
            }
        });
        receiving.catch(reject);
    }));
}

function ticket_dialog(vm, ticket) {
    const left = el("p", { class: "countdown", role: "timer" }), ends = Date.now() + EXPIRE * 1000;
    const text = el("textarea", { class: "ticket", readonly: true, rows: 5, "aria-label": _("Ticket") });
    const copy = button(_("Copy"), "primary", () => {
        text.select();
        (navigator.clipboard ? navigator.clipboard.writeText(ticket).then(() => true) : Promise.reject())
            .catch(() => document.execCommand("copy")) /* over plain HTTP there is only this */
            .then(done => { copy.textContent = done ? _("Copied") : _("Press Ctrl+C"); });
    });
    const count = () => {
        const seconds = (ends - Date.now()) / 1000;
        left.textContent = seconds > 0 ? cockpit.format(_("It expires in $0."), clock(seconds)) : _("It has expired.");
    };
    const timer = window.setInterval(count, 1000);
    text.value = ticket;
    count();
    dialog(cockpit.format(_("Ticket for $0"), vm), [
        el("p", {}, _("Give it to the other host's administrator, and to nobody else: with it one can be the source.")), text, copy, left,
    ]).addEventListener("close", () => window.clearInterval(timer));
}

function check_dialog() {
    const list = el("ul", { class: "findings", "aria-live": "polite" });
    dialog(_("Check a host"), [
        field("host", _("Host"), { placeholder: "root@host2" }, _("Empty: only this one")), list,
    ], _("Check"), box => {
        list.replaceChildren();
        const said = value(box, "host") ? ["--", value(box, "host")] : [];
        /* It ends with 1 where something is wrong: what it found is on its standard output all the same. */
        return new Promise((resolve, reject) => {
            const show_all = text => list.replaceChildren(...JSON.parse(text).map(found => el("li", { class: found.Verdict },
                el("strong", {}, found.Name), ` ${found.Text}`, found.Remedy ? el("small", {}, found.Remedy) : null)));
            spawn(["vmferryctl", "check", "--json=short", "--no-ask-password", ...said]).then(show_all, (error, text) => {
                if (!text)
                    throw error;
                show_all(text);
            }).then(() => resolve(true), reject);
        });
    });
}
