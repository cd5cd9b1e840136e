/* sanitized.h - is this a build with AddressSanitizer or ThreadSanitizer (the Makefile's SANITIZE)?
 *
 * Their runtimes map memory, start threads and make system calls of their own, which no filter and
 * no limit of ours was made for: such a build goes without, and its threads need more stack.  UBSan
 * does nothing of that.  gcc's macros: clang has others. */
#pragma once
#include <stdbool.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif
