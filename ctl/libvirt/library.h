/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * libvirt's client library, opened when it is needed and not before: the other verbs pay nothing for it, and
 * it need not be installed. Nothing else of vmferryctl calls it by name.
 */

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include "ctl/trouble.h"

#define LIBVIRT_SYMBOLS(X)             \
    X(virConnectClose)                 \
    X(virConnectCompareHypervisorCPU)  \
    X(virConnectGetCapabilities)       \
    X(virConnectGetDomainCapabilities) \
    X(virConnectGetLibVersion)         \
    X(virConnectGetVersion)            \
    X(virConnectListAllStoragePools)   \
    X(virConnectOpen)                  \
    X(virCopyLastError)                \
    X(virDomainAbortJob)               \
    X(virDomainFree)                   \
    X(virDomainGetAutostart)           \
    X(virDomainGetID)                  \
    X(virDomainGetJobStats)            \
    X(virDomainGetName)                \
    X(virDomainGetSecurityLabelList)   \
    X(virDomainGetState)               \
    X(virDomainGetUUIDString)          \
    X(virDomainGetXMLDesc)             \
    X(virDomainIsPersistent)           \
    X(virDomainLookupByID)             \
    X(virDomainLookupByName)           \
    X(virDomainLookupByUUIDString)     \
    X(virDomainMigrate3)               \
    X(virDomainMigrateSetMaxDowntime)  \
    X(virDomainMigrateStartPostCopy)   \
    X(virDomainMigrateToURI3)          \
    X(virDomainSetAutostart)           \
    X(virDomainUndefineFlags)          \
    X(virFreeError)                    \
    X(virGetLastError)                 \
    X(virInitialize)                   \
    X(virResetError)                   \
    X(virSetErrorFunc)                 \
    X(virStoragePoolFree)              \
    X(virStoragePoolGetXMLDesc)        \
    X(virTypedParamsAddInt)            \
    X(virTypedParamsAddString)         \
    X(virTypedParamsAddULLong)         \
    X(virTypedParamsFree)              \
    X(virTypedParamsGetULLong)

struct libvirt {
#define LIBVIRT_MEMBER(name) __typeof__(name) *name;
    LIBVIRT_SYMBOLS(LIBVIRT_MEMBER)
#undef LIBVIRT_MEMBER
};

/* The library, the same one each time; NULL with a trouble where it is not installed. It stays open. */
const struct libvirt *libvirt_get(struct trouble *trouble);

/* What it said last in this thread: never NULL, valid until its next call; and its code, VIR_ERR_OK for none.
 */
const char *libvirt_words(const struct libvirt *libvirt);
int libvirt_code(const struct libvirt *libvirt);
