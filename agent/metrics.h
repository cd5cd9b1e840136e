/* metrics.h - parts of GET /metrics (node_metrics, agent/node.h).  Loop thread. */
#pragma once
#include <stdio.h>

struct node;

/* What stands before a family's lines; help without its full stop. */
void metrics_head(FILE *out, const char *name, const char *type, const char *help);
/* All families of VMs, disks, nics and vsocks.  -ENOMEM: nothing was printed. */
int metrics_print_vms(FILE *out, const struct node *node);
