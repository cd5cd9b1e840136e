/* node_handlers.c - the node itself: /v1/node, /metrics, /healthz, /readyz, /openapi.yaml. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "api/api_metrics.h"
#include "api/handlers.h"
#include "api/openapi.h"
#include "api/request.h"
#include "base/cleanup.h"

void node_show(struct request *request)
{
    request_reply_json(request, 200, node_info(request->node), NULL);
}

void node_show_memory(struct request *request)
{
    request_reply_json(request, 200, node_memory_json(request->node), NULL);
}

void node_show_metrics(struct request *request)
{
    size_t node_size = 0, api_size = 0;
    auto_free char *of_node = node_metrics(request->node, &node_size);
    auto_free char *of_api = api_metrics_text(request->metrics, &api_size);
    auto_free char *all = of_node && of_api ? malloc(node_size + api_size + 1) : NULL;
    struct error err;

    if (!all) {
        error_set(&err, EAGAIN, "memory is short");
        request_reply_error(request, &err);
        return;
    }
    memcpy(all, of_node, node_size);
    memcpy(all + node_size, of_api, api_size);
    request_reply_text(request, 200, "text/plain; version=0.0.4; charset=utf-8", all,
                       node_size + api_size);
}

void node_show_health(struct request *request)
{
    request_reply_text(request, 200, "text/plain; charset=utf-8", "ok\n", strlen("ok\n"));
}

void node_show_readiness(struct request *request)
{
    struct error err = { 0 };

    if (node_ready(request->node, &err) < 0)
        request_reply_error(request, &err);
    else
        request_reply_text(request, 200, "text/plain; charset=utf-8", "ready\n", strlen("ready\n"));
}

void node_show_openapi(struct request *request)
{
    size_t size;
    const char *text = openapi_text(&size);

    request_reply_text(request, 200, "application/yaml", text, size);
}
