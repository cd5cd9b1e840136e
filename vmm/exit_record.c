#include "vmm/exit_record.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"

static const char *const reason_names[EXIT_REASON_COUNT] = {
    [EXIT_REASON_NONE] = "none",
    [EXIT_REASON_POWEROFF] = "power-off",
    [EXIT_REASON_REBOOT] = "reboot",
    [EXIT_REASON_PANIC] = "guest panic",
    [EXIT_REASON_TRIPLE_FAULT] = "triple fault",
    [EXIT_REASON_KVM_ERROR] = "KVM error",
    [EXIT_REASON_VMM_ERROR] = "VMM error",
    [EXIT_REASON_CONFIG] = "configuration",
};

int stats_page_map(int fd, struct stats_page **ret_page, struct error *err)
{
    struct stats_page *page;
    struct stat status;

    if (fstat(fd, &status) < 0)
        return error_set(err, errno, "look at the shared page");
    if (!S_ISREG(status.st_mode) || status.st_size < VMM_PAGE_BYTES)
        return error_set(err, EINVAL, "the shared page is no file of %d bytes", VMM_PAGE_BYTES);
    page = mmap(NULL, VMM_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return error_set(err, errno, "map the shared page");
    __atomic_store_n(&page->magic, STATS_PAGE_MAGIC, __ATOMIC_RELEASE);
    *ret_page = page;
    return 0;
}

_Noreturn void exit_record_end(struct exit_record *record, enum exit_reason reason, int detail,
                               const char *text)
{
    struct stats_page *page = record->page;

    /* A second thread waits here until the first one's exit_group ends it, too. */
    while (atomic_exchange(&record->claimed, true))
        __builtin_ia32_pause();
    if (record->finish)
        record->finish(record->context);
    if (page) {
        page->exit_detail = reason == EXIT_REASON_POWEROFF ? page->exit_detail : detail;
        snprintf(page->exit_text, sizeof page->exit_text, "%s", text);
        __atomic_store_n(&page->exit_reason, reason, __ATOMIC_RELEASE);
    }
    log_info(record->log, "ends: %s (%d) %s", reason_names[reason], detail, text);
    _exit(reason == EXIT_REASON_POWEROFF ? 0 : (int)reason);
}

_Noreturn void exit_record_fail(struct exit_record *record, enum exit_reason reason,
                                const struct error *err)
{
    char text[sizeof err->field + sizeof err->message + 2];

    snprintf(text, sizeof text, "%s%s%s", err->field, err->field[0] ? ": " : "", err->message);
    exit_record_end(record, reason, err->code, text);
}
