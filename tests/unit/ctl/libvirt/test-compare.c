/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "ctl/libvirt/compare.h"
#include "ctl/libvirt/keepalive.h"

static const char web1[] =
    "<!-- <domain type='none'> -->\n"
    "<domain type='kvm' id='3'>\n"
    "  <name>web1</name>\n"
    "  <title>a &lt;cpu&gt; of &quot;its own&quot;</title>\n"
    "  <metadata><other:cpu xmlns:other='x' a='/>'/><devices><disk type='file' device='disk'>"
    "<source file='/no'/><target dev='no'/></disk></devices><cpu/></metadata>\n"
    "  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><boot dev='hd'/></os>\n"
    "  <cpu mode='custom' match='exact' check='full'>\n"
    "    <model fallback='forbid'>Skylake-Client-IBRS</model>\n"
    "    <feature policy='require' name='ssbd'/>\n"
    "  </cpu>\n"
    "  <devices>\n"
    "    <emulator>/usr/bin/qemu-system-x86_64</emulator>\n"
    "    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\n"
    "      <source file='/srv/it&apos;s &amp; me.qcow2' index='1'/><backingStore/><target dev='vda' "
    "bus='virtio'/></disk>\n"
    "    <disk type='block' device='lun'><source dev='/dev/vg/b'/><target dev='sda'/></disk>\n"
    "    <disk type='file' device='disk'><source file='/s'/><target dev='vdb'/><shareable/></disk>\n"
    "    <disk type='file' device='disk'><source file='/r'/><target dev='vdc'/><readonly/></disk>\n"
    "    <disk type='file' device='cdrom'><source file='/c'/><target dev='sdb'/></disk>\n"
    "    <disk type='network' device='disk'><source protocol='rbd' name='p/i'/><target dev='vdd'/></disk>\n"
    "    <disk type='file' device='disk'/>\n"
    "  </devices>\n"
    "</domain>\n"
    "<domain type='late'/>";

TEST(a_domain_is_read)
{
    struct domain_needs needs;

    assert_true(compare_read_domain(web1, &needs));
    assert_string_equal(needs.type, "kvm");
    assert_string_equal(needs.arch, "x86_64");
    assert_string_equal(needs.machine, "pc-q35-7.2");
    assert_string_equal(needs.emulator, "/usr/bin/qemu-system-x86_64");
    assert_memory_equal(needs.cpu, "<cpu mode='custom'", 18);
    assert_memory_equal(needs.cpu + needs.cpu_size - 6, "</cpu>", 6);
}

/* What others write into its metadata is no part of it, and neither are shared disks. */
TEST(its_own_writable_disks_are_found)
{
    struct domain_needs needs;

    assert_true(compare_read_domain(web1, &needs));
    assert_int_equal(needs.n_disks, 2);
    assert_string_equal(needs.disks[0].target, "vda");
    assert_string_equal(needs.disks[0].source, "/srv/it's & me.qcow2");
    assert_string_equal(needs.disks[1].target, "sda");
    assert_string_equal(needs.disks[1].source, "/dev/vg/b");
}

/* Cut off after each byte: nothing is read past the end, and what was whole is as it was. */
TEST(a_part_of_it_is_read_as_far_as_it_goes)
{
    for (size_t n = 0; n < sizeof(web1); n++) {
        struct domain_needs needs;
        char *part = malloc(n + 1);

        assert_non_null(part);
        memcpy(part, web1, n);
        part[n] = '\0';
        if (compare_read_domain(part, &needs))
            assert_string_equal(needs.type, "kvm");
        assert_true(needs.n_disks <= 2);
        free(part);
    }
}

TEST(what_is_no_domain_is_refused)
{
    static const char *const texts[] = {"",
                                        "web1",
                                        "<",
                                        "<>",
                                        "</domain>",
                                        "<domain>",
                                        "<network type='kvm'/>",
                                        "<!-- ",
                                        "<?xml ?>",
                                        "<a <b/>",
                                        "<domain type=kvm>"};
    struct domain_needs needs;
    char deep[400] = "";

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_false(compare_read_domain(texts[i], &needs));
    for (unsigned i = 0; i < 100; i++)
        strcat(deep, "<a>");
    assert_false(compare_read_domain(deep, &needs));
}

/* Which is longer than what is kept is not taken for something shorter. */
TEST(a_name_that_does_not_fit_is_none)
{
    struct domain_needs needs;
    char text[400];

    snprintf(text, sizeof(text), "<domain type='kvm'><os><type arch='%0100d' machine='m'/></os></domain>", 1);
    assert_true(compare_read_domain(text, &needs));
    assert_string_equal(needs.arch, "");
    assert_string_equal(needs.machine, "m");
}

TEST(a_host_is_read)
{
    char uuid[64];

    assert_true(
        compare_read_host("<capabilities><host><uuid>5b1cbbd0-0000-4000-8000-000000000001</uuid><cpu>"
                          "<arch>x86_64</arch></cpu></host><guest><uuid>x</uuid></guest></capabilities>",
                          uuid, sizeof(uuid)));
    assert_string_equal(uuid, "5b1cbbd0-0000-4000-8000-000000000001");
    assert_false(
        compare_read_host("<capabilities><guest><uuid>x</uuid></guest></capabilities>", uuid, sizeof(uuid)));
}

TEST(a_pool_has_a_directory)
{
    char path[64];

    assert_true(
        compare_read_pool("<pool type='dir'><name>default</name><source/><target><path>/var/lib/images</path>"
                          "</target></pool>",
                          path, sizeof(path)));
    assert_string_equal(path, "/var/lib/images");
    assert_false(
        compare_read_pool("<pool type='rbd'><source><path>/x</path></source></pool>", path, sizeof(path)));
    assert_true(compare_directory("/var/lib/images/a.img", path, sizeof(path)));
    assert_string_equal(path, "/var/lib/images");
    assert_false(compare_directory("a.img", path, sizeof(path)));
    assert_false(compare_directory("/a.img", path, sizeof(path)));
}

TEST(libvirt_gives_up_after)
{
    assert_int_equal(keepalive_read(""), KEEPALIVE_DEFAULT);
    assert_int_equal(keepalive_read("#keepalive_interval = -1\n# keepalive_count = 9"), KEEPALIVE_DEFAULT);
    assert_int_equal(keepalive_read("x = 1\n keepalive_interval=10 # as it was\nkeepalive_count = 2\n"), 30);
    assert_int_equal(keepalive_read("keepalive_interval = 5\nkeepalive_interval = -1"), KEEPALIVE_NEVER);
    assert_int_equal(keepalive_read("keepalive_interval = 0"), KEEPALIVE_NEVER);
    assert_int_equal(keepalive_read("keepalive_interval = \"x\"\nkeepalive_intervals = 7\nkeepalive_count"),
                     KEEPALIVE_DEFAULT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_domain_is_read),
        CASE(its_own_writable_disks_are_found),
        CASE(a_part_of_it_is_read_as_far_as_it_goes),
        CASE(what_is_no_domain_is_refused),
        CASE(a_name_that_does_not_fit_is_none),
        CASE(a_host_is_read),
        CASE(a_pool_has_a_directory),
        CASE(libvirt_gives_up_after),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
