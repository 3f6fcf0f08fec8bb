"""Pure ASGI middleware between the socket and the routes, one file each.

vLLM's public `--middleware` flag adds them to its app, in front of every route, vLLM's own and those of plugins. A
middleware finds vLLM's settings and ours in `scope["app"].state.args`.
"""

MIDDLEWARE: tuple[str, ...] = (
    "server.gate.error_shape.OpenAIErrors",
    "server.gate.admission.Admission",
    "server.gate.body.BodyLimits",
    "server.gate.auth.Authentication",
    "server.gate.host.LoopbackHost",
    "server.gate.methods.KnownMethods",
    "server.gate.access_log.AccessLog",
    "server.gate.connection.carrier.Connections",
)
"""Innermost first, the order in which vLLM adds them: the last one sees a request first."""
