#include "tests/guest/net.h"
#include "tests/guest/console.h"
void net_run(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    (void)guest, (void)index, (void)arguments, (void)count;
    console_print("net usage\n");
}
