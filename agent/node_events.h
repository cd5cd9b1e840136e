/* node_events.h - streams of events, for the node's own files; see node.h.  Loop thread only. */
#pragma once
#include <stdint.h>

struct node;

unsigned node_event_streams(const struct node *node);
/* Ends all streams; no more are begun. */
void node_events_end(struct node *node);
