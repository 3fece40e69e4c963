/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "ctl/libvirt/plan.h"

static const struct plan_ends debian12 = {
    .persistent = true, .p2p = true, .near_qemu = 7002022, .far_qemu = 7002022, .far_libvirt = 9000000};

static bool refused(const struct arguments *a, const struct plan_ends *ends, const char *part)
{
    struct trouble trouble = {0};
    bool r = plan_check(a, "web$(id)", ends, &trouble) < 0;

    if (r && (!trouble.text || !strstr(trouble.text, part)))
        fail_msg("%s", trouble.text ? trouble.text : "");
    trouble_clear(&trouble);
    return r;
}

TEST(a_definition_moves_with_its_domain)
{
    struct arguments a = {0};
    struct plan_ends transient = debian12;

    transient.persistent = false;
    assert_int_equal(plan_flags(&a, &debian12), VIR_MIGRATE_LIVE | VIR_MIGRATE_PEER2PEER |
                                                    VIR_MIGRATE_PERSIST_DEST | VIR_MIGRATE_UNDEFINE_SOURCE);
    assert_int_equal(plan_flags(&a, &transient), VIR_MIGRATE_LIVE | VIR_MIGRATE_PEER2PEER);
    a.temporary = true;
    assert_int_equal(plan_flags(&a, &debian12), VIR_MIGRATE_LIVE | VIR_MIGRATE_PEER2PEER);
}

TEST(each_option_has_its_flag)
{
    struct arguments a = {.temporary = true, .disks = ""};
    struct plan_ends direct = {0};

    assert_int_equal(plan_flags(&a, &direct), VIR_MIGRATE_LIVE | VIR_MIGRATE_NON_SHARED_DISK);
    a = (struct arguments){.postcopy = POSTCOPY_AUTO, .unsafe = true};
    assert_int_equal(plan_flags(&a, &direct), VIR_MIGRATE_LIVE | VIR_MIGRATE_POSTCOPY | VIR_MIGRATE_UNSAFE);
    direct.paused = true; /* it has nothing to change behind pre-copy's back */
    assert_int_equal(plan_flags(&a, &direct), VIR_MIGRATE_LIVE | VIR_MIGRATE_UNSAFE);
    a = (struct arguments){.multifd = 4, .auto_converge = true, .paused = true};
    assert_int_equal(plan_flags(&a, &direct), VIR_MIGRATE_LIVE | VIR_MIGRATE_PARALLEL |
                                                  VIR_MIGRATE_AUTO_CONVERGE | VIR_MIGRATE_PAUSED);
    a = (struct arguments){.resume = true, .disks = ""}; /* nothing else goes with it */
    assert_int_equal(plan_flags(&a, &debian12),
                     VIR_MIGRATE_LIVE | VIR_MIGRATE_POSTCOPY | VIR_MIGRATE_POSTCOPY_RESUME);
}

TEST(what_loses_the_guest_is_refused)
{
    struct arguments a = {.multifd = 4, .postcopy = POSTCOPY_NOW};
    struct plan_ends ends = debian12;

    assert_true(refused(&a, &ends, "before 10.1 (here 7.2, there 7.2)"));
    ends.near_qemu = 10001000;
    assert_true(refused(&a, &ends, "there 7.2"));
    ends.far_qemu = 10001000;
    assert_false(refused(&a, &ends, ""));
    a.postcopy = POSTCOPY_NO;
    assert_false(refused(&a, &debian12, ""));
    a = (struct arguments){.paused = true};
    assert_false(refused(&a, &debian12, ""));
    a.postcopy = POSTCOPY_AUTO;
    assert_true(refused(&a, &debian12, "--paused"));
}

TEST(what_ends_the_other_libvirtd_is_refused)
{
    const struct arguments a = {.resume = true}, b = {0};
    struct plan_ends ends = debian12;

    assert_false(refused(&a, &ends, ""));
    ends.far_libvirt = 11002000;
    assert_true(refused(&a, &ends, "libvirt 11.2"));
    ends.far_libvirt = 11003000;
    assert_true(refused(&a, &ends, "libvirt 11.3"));
    assert_true(refused(&a, &ends, "qemu-monitor-command 'web$(id)'"));
    assert_false(refused(&b, &ends, ""));
    ends.far_libvirt = 11004000;
    assert_false(refused(&a, &ends, ""));
}

TEST(a_limit_is_never_none)
{
    assert_int_equal(plan_bandwidth(0), 0);
    assert_int_equal(plan_bandwidth(1), 1);
    assert_int_equal(plan_bandwidth(1 << 20), 1);
    assert_int_equal(plan_bandwidth((1 << 20) + 1), 2);
}

TEST(disks_are_named_with_commas)
{
    const char *found[4];
    char text[] = "vda,vdb,,vdc", none[] = "";

    assert_int_equal(plan_disks(text, found, 4), 3);
    assert_string_equal(found[0], "vda");
    assert_string_equal(found[2], "vdc");
    assert_int_equal(plan_disks(none, found, 4), 0);
}

/* As libvirt 9.0 and 11.3 say it. */
TEST(what_libvirt_says_has_a_remedy)
{
    static const struct {
        int code;
        const char *words, *remedy;
    } cases[] = {
        {VIR_ERR_CONFIG_UNSUPPORTED, "Postcopy is not supported", "sysctl vm.unprivileged_userfaultfd=1"},
        {VIR_ERR_NO_STORAGE_POOL,
         "Storage pool not found: no storage pool with matching target path '/var/lib/libvirt/images'",
         "virsh pool"},
        {VIR_ERR_MIGRATE_UNSAFE, "Unsafe migration: Migration without shared storage is unsafe", "--disks"},
        {VIR_ERR_MIGRATE_UNSAFE,
         "Unsafe migration: Migration may lead to data corruption if disks use cache other "
         "than none or directsync",
         "--unsafe"},
        {VIR_ERR_INVALID_ARG, "NBD URI must be supplied when migration URI uses UNIX transport method",
         "--disks"},
        {VIR_ERR_INTERNAL_ERROR,
         "internal error: unable to execute QEMU command 'migrate-incoming': Failed to bind "
         "socket to /run/libvirt/qemu/x: Permission denied",
         "LibvirtUser="},
        {VIR_ERR_INTERNAL_ERROR, "internal error: connection closed due to keepalive timeout",
         "keepalive_interval"},
        {VIR_ERR_INTERNAL_ERROR, "internal error: client socket is closed", "keepalive_interval"},
        {VIR_ERR_INTERNAL_ERROR, "internal error: attempt to migrate guest to the same host 5b1c",
         "host_uuid"},
        {VIR_ERR_SYSTEM_ERROR, "Cannot recv data: Host key verification failed.: Connection reset by peer",
         "ssh HOST"},
        {VIR_ERR_SYSTEM_ERROR, "Cannot recv data: root@h: Permission denied (publickey).: Connection reset",
         "ssh HOST"},
        {VIR_ERR_SYSTEM_ERROR, "Cannot recv data: ssh: Could not resolve hostname h: Name unknown",
         "ssh HOST"},
        {VIR_ERR_OPERATION_FAILED, "operation failed: domain 'web1' already exists with uuid 6a2c",
         "--name="},
        {VIR_ERR_OPERATION_INVALID, "Requested operation is not valid: domain 'web1' is already active",
         "runs"},
        {VIR_ERR_OPERATION_INVALID,
         "Requested operation is not valid: another migration job is already running for "
         "domain 'web1'",
         "domjobabort"},
        {VIR_ERR_OPERATION_TIMEOUT,
         "Timed out during operation: cannot acquire state change lock (held by x)", "domjobinfo"},
        {VIR_ERR_INVALID_ARG, "invalid argument: unable to find any emulator to serve 'x86_64'",
         "Install QEMU"},
        {VIR_ERR_SYSTEM_ERROR, "Cannot check QEMU binary /usr/local/bin/q: No such file or directory",
         "Install"},
        {VIR_ERR_INTERNAL_ERROR, "qemu-system-x86_64: unsupported machine type", "older"},
        {VIR_ERR_OPERATION_FAILED, "guest CPU doesn't match specification: missing features: avx",
         "--domain="},
        {VIR_ERR_CPU_INCOMPATIBLE, "the CPU is incompatible with host CPU: x", "CPU model"},
        {VIR_ERR_INTERNAL_ERROR,
         "qemu unexpectedly closed the monitor: Unknown savevm section or instance 'x' 0", "machine type"},
        {VIR_ERR_OPERATION_INVALID,
         "Requested operation is not valid: domain has assigned non-USB host devices", "detach-device"},
        {VIR_ERR_OPERATION_INVALID,
         "Requested operation is not valid: cannot migrate domain with 1 snapshots", "snapshot-delete"},
        {VIR_ERR_OPERATION_INVALID, "cannot migrate domain with 2 checkpoints", "checkpoint-delete"},
        {VIR_ERR_NO_NETWORK, "Network not found: no network with matching name 'default'", "net-define"},
        {VIR_ERR_SYSTEM_ERROR, "Cannot get interface MTU on 'br0': No such device", "bridge"},
        {VIR_ERR_SYSTEM_ERROR, "cannot limit locked memory of process 7 to 1: Operation not permitted",
         "hard_limit"},
        {VIR_ERR_AUTH_UNAVAILABLE, "authentication unavailable: no polkit agent", "group libvirt"},
        {VIR_ERR_AUTH_FAILED, "authentication failed: x", "group libvirt"},
        {VIR_ERR_INTERNAL_ERROR, "internal error: something that nobody has thought of", "journalctl"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (!strstr(plan_remedy(cases[i].code, cases[i].words), cases[i].remedy))
            fail_msg("%s: %s", cases[i].words, plan_remedy(cases[i].code, cases[i].words));
    assert_string_equal(plan_remedy(VIR_ERR_OPERATION_ABORTED, "migration out job: canceled by client"), "");
    assert_true(plan_is_cancelled(VIR_ERR_OPERATION_ABORTED));
    assert_false(plan_is_denied(VIR_ERR_SYSTEM_ERROR));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_definition_moves_with_its_domain),
        CASE(each_option_has_its_flag),
        CASE(what_loses_the_guest_is_refused),
        CASE(what_ends_the_other_libvirtd_is_refused),
        CASE(a_limit_is_never_none),
        CASE(disks_are_named_with_commas),
        CASE(what_libvirt_says_has_a_remedy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
