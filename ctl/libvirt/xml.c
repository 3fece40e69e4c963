/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/xml.h"

#include <stdio.h>
#include <string.h>

#define BLANKS " \t\r\n"

void xml_begin(struct xml *xml, const char *text)
{
    *xml = (struct xml){.text = text, .end = text + strlen(text)};
}

/* What a text stands for: libvirt escapes five characters, and writes line ends in attributes by number. */
static bool unescape(const char *text, size_t n, char *ret, size_t size)
{
    static const struct {
        const char *name;
        char c;
    } entities[] = {{"&lt;", '<'},    {"&gt;", '>'},   {"&amp;", '&'}, {"&quot;", '"'},
                    {"&apos;", '\''}, {"&#10;", '\n'}, {"&#xA;", '\n'}};
    size_t used = 0;

    for (size_t i = 0, step; i < n; i += step) {
        char c = text[i];

        step = 1;
        for (size_t e = 0; c == '&' && e < sizeof(entities) / sizeof(entities[0]); e++) {
            size_t length = strlen(entities[e].name);

            if (length <= n - i && memcmp(text + i, entities[e].name, length) == 0) {
                ret[used] = entities[e].c;
                step = length;
            }
        }
        if (step == 1)
            ret[used] = c;
        if (++used >= size) {
            ret[0] = '\0';
            return false;
        }
    }
    ret[used] = '\0';
    return true;
}

static void leave(struct xml *xml)
{
    char *slash = strrchr(xml->path, '/');

    *(slash ? slash : xml->path) = '\0';
    xml->depth--;
}

static bool enter(struct xml *xml, const char *name, size_t n)
{
    size_t size = strlen(xml->path);

    if (xml->depth >= XML_DEPTH_MAX || n == 0 || size + n + 2 > sizeof(xml->path))
        return false;
    snprintf(xml->path + size, sizeof(xml->path) - size, "%s%.*s", size > 0 ? "/" : "", (int)n, name);
    xml->depth++;
    return true;
}

/* The '>' that ends the tag, none of those in its attributes. */
static const char *find_end(const char *text, const char *end)
{
    char quote = '\0';

    for (; text < end; text++)
        if (quote != '\0')
            quote = *text == quote ? '\0' : quote;
        else if (*text == '\'' || *text == '"')
            quote = *text;
        else if (*text == '>')
            return text;
    return NULL;
}

/* Past comments, and what stands before the first tag. */
static const char *find_begin(const char *text)
{
    for (const char *at = strchr(text, '<'); at; at = strchr(at, '<')) {
        const char *over = strncmp(at, "<!--", 4) == 0 ? "-->" : strncmp(at, "<?", 2) == 0 ? "?>" : NULL;

        if (!over)
            return at;
        at = strstr(at, over);
        if (!at)
            return NULL;
    }
    return NULL;
}

bool xml_next(struct xml *xml)
{
    const char *at, *end, *name;
    size_t n;

    if (xml->leave)
        leave(xml);
    xml->opens = xml->closes = xml->leave = false;
    at = find_begin(xml->text);
    end = at ? find_end(at, xml->end) : NULL;
    if (!end || (xml->depth == 0 && xml->tag))
        return false;
    xml->tag = at;
    xml->text = end + 1;
    if (at[1] == '/') {
        xml->closes = xml->leave = true;
        xml->attributes_size = 0;
        return xml->depth > 0;
    }
    name = at + 1;
    n = strcspn(name, BLANKS "/>");
    xml->opens = true;
    xml->closes = xml->leave = end[-1] == '/';
    xml->attributes = name + n;
    xml->attributes_size = (size_t)(end - xml->attributes) - xml->closes;
    return enter(xml, name, n);
}

bool xml_at(const struct xml *xml, const char *path)
{
    return strcmp(xml->path, path) == 0;
}

bool xml_attribute(const struct xml *xml, const char *name, char *ret, size_t size)
{
    const char *at = xml->attributes, *end = at + xml->attributes_size;

    ret[0] = '\0';
    if (!xml->opens)
        return false;
    while (at < end) {
        const char *begin, *quote;
        size_t n;

        at += strspn(at, BLANKS);
        n = strcspn(at, "=" BLANKS "/>");
        begin = at + n + 1;
        if (n == 0 || begin >= end || at[n] != '=' || (*begin != '\'' && *begin != '"'))
            return false;
        quote = memchr(begin + 1, *begin, (size_t)(end - begin) - 1);
        if (!quote)
            return false;
        if (strlen(name) == n && memcmp(at, name, n) == 0)
            return unescape(begin + 1, (size_t)(quote - begin) - 1, ret, size);
        at = quote + 1;
    }
    return false;
}

bool xml_text(const struct xml *xml, char *ret, size_t size)
{
    ret[0] = '\0';
    return xml->opens && !xml->closes && unescape(xml->text, strcspn(xml->text, "<"), ret, size);
}
