/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "ctl/qemu/block.h"

static bool read_disk(const char *text, struct block_disk *ret)
{
    json_object *entry = json_tokener_parse(text);
    bool there = block_read_disk(entry, ret);

    json_object_put(entry);
    return there;
}

TEST(test_disk)
{
    struct block_disk disk;

    assert_true(read_disk(
        "{\"device\": \"\", \"qdev\": \"/machine/peripheral/a/virtio-backend\", \"inserted\": {\"ro\": "
        "false, \"node-name\": \"disk0\", \"image\": {\"filename\": \"/srv/a:b.img\"}}}",
        &disk));
    assert_string_equal(disk.name, "disk0");
    assert_string_equal(disk.node, "disk0");
    assert_string_equal(disk.qdev, "/machine/peripheral/a/virtio-backend");
    assert_string_equal(disk.driver, "file");
    assert_string_equal(disk.file, "/srv/a:b.img");
    assert_false(disk.read_only);
    assert_true(
        read_disk("{\"device\": \"drive0\", \"inserted\": {\"ro\": true, \"node-name\": \"#block12\", "
                  "\"image\": {\"filename\": \"rbd:pool/image\"}}}",
                  &disk));
    assert_string_equal(disk.name, "drive0");
    assert_string_equal(disk.node, "#block12");
    assert_string_equal(disk.driver, "rbd");
    assert_string_equal(disk.file, "");
    assert_true(disk.read_only);
}

TEST(test_no_disk)
{
    static const char *const none[] = {"{}",
                                       "{\"device\": \"floppy0\"}",
                                       "{\"device\": \"a\", \"inserted\": {}}",
                                       "{\"device\": \"a\", \"inserted\": []}",
                                       "{\"device\": \"a\", \"inserted\": {\"node-name\": 1}}",
                                       "[]",
                                       "null"};
    struct block_disk disk;

    for (size_t i = 0; i < ELEMENTS(none); i++)
        assert_false(read_disk(none[i], &disk));
}

static struct block_job read_job(const char *text)
{
    json_object *list = json_tokener_parse(text);
    struct block_job job;

    block_read_job(list, "vmferry-disk0", &job);
    json_object_put(list);
    return job;
}

TEST(test_job)
{
    struct block_job job;

    assert_int_equal(read_job("[]").state, BLOCK_JOB_NONE);
    assert_int_equal(read_job("{}").state, BLOCK_JOB_NONE);
    assert_int_equal(read_job("[{\"id\": \"other\", \"status\": \"ready\"}, 1, null]").state, BLOCK_JOB_NONE);
    assert_int_equal(read_job("[{\"id\": \"vmferry-disk0\", \"status\": \"ready\"}]").state, BLOCK_JOB_READY);
    assert_int_equal(read_job("[{\"id\": \"vmferry-disk0\", \"status\": \"paused\"}]").state, BLOCK_JOB_RUNS);
    job = read_job(
        "[{\"id\": \"vmferry-disk0\", \"status\": \"concluded\", \"current-progress\": 5, "
        "\"total-progress\": 9, "
        "\"error\": \"No space left\"}]");
    assert_int_equal(job.state, BLOCK_JOB_ENDED);
    assert_int_equal(job.done, 5);
    assert_int_equal(job.total, 9);
    assert_string_equal(job.error, "No space left");
}

int main(void)
{
    const struct CMUnitTest tests[] = {CASE(test_disk), CASE(test_no_disk), CASE(test_job)};

    return cmocka_run_group_tests_name("ctl-block", tests, NULL, NULL);
}
