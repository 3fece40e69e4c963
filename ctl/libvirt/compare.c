/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/compare.h"

#include <stdio.h>
#include <string.h>

#include "ctl/libvirt/xml.h"

/* The tags within one <disk>, up to its end. */
static void read_disk(struct xml *xml, struct domain_needs *ret)
{
    struct domain_disk disk = {0};
    char device[16];
    bool counts = !xml_attribute(xml, "device", device, sizeof(device)) || strcmp(device, "disk") == 0 ||
                  strcmp(device, "lun") == 0;

    while (!(xml->closes && xml_at(xml, "domain/devices/disk")) && xml_next(xml)) {
        if (xml_at(xml, "domain/devices/disk/readonly") || xml_at(xml, "domain/devices/disk/shareable"))
            counts = false;
        else if (xml_at(xml, "domain/devices/disk/target") && xml->opens)
            xml_attribute(xml, "dev", disk.target, sizeof(disk.target));
        else if (xml_at(xml, "domain/devices/disk/source") && xml->opens &&
                 !xml_attribute(xml, "file", disk.source, sizeof(disk.source)))
            xml_attribute(xml, "dev", disk.source, sizeof(disk.source));
    }
    if (counts && xml->closes && xml_at(xml, "domain/devices/disk") && disk.source[0] &&
        ret->n_disks < COMPARE_DISKS_MAX)
        ret->disks[ret->n_disks++] = disk;
}

bool compare_read_domain(const char *text, struct domain_needs *ret)
{
    struct xml xml;
    bool found = false;

    *ret = (struct domain_needs){0};
    xml_begin(&xml, text);
    while (xml_next(&xml)) {
        if (xml_at(&xml, "domain") && xml.opens) {
            found = xml_attribute(&xml, "type", ret->type, sizeof(ret->type));
        } else if (xml_at(&xml, "domain/os/type") && xml.opens) {
            xml_attribute(&xml, "arch", ret->arch, sizeof(ret->arch));
            xml_attribute(&xml, "machine", ret->machine, sizeof(ret->machine));
        } else if (xml_at(&xml, "domain/devices/emulator") && xml.opens) {
            xml_text(&xml, ret->emulator, sizeof(ret->emulator));
        } else if (xml_at(&xml, "domain/cpu")) {
            if (xml.opens)
                ret->cpu = xml.tag;
            if (xml.closes && ret->cpu)
                ret->cpu_size = (size_t)(xml.text - ret->cpu);
        } else if (xml_at(&xml, "domain/devices/disk") && xml.opens) {
            read_disk(&xml, ret);
        }
    }
    if (ret->cpu_size == 0)
        ret->cpu = NULL;
    return found;
}

/* The text of the first element at this path. */
static bool read_text_at(const char *text, const char *path, char *ret, size_t size)
{
    struct xml xml;

    xml_begin(&xml, text);
    while (xml_next(&xml))
        if (xml_at(&xml, path) && xml.opens)
            return xml_text(&xml, ret, size);
    return false;
}

bool compare_read_host(const char *text, char *ret, size_t size)
{
    return read_text_at(text, "capabilities/host/uuid", ret, size);
}

bool compare_read_pool(const char *text, char *ret, size_t size)
{
    return read_text_at(text, "pool/target/path", ret, size);
}

bool compare_directory(const char *path, char *ret, size_t size)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;

    if (n == 0 || n >= size)
        return false;
    snprintf(ret, size, "%.*s", (int)n, path);
    return true;
}
