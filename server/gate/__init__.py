"""What a request passes between the socket and a route: pure ASGI middleware, one file each.

vLLM's public `--middleware` flag puts them into the app that it builds, so they stand in front of every route, vLLM's
own and those of plugins alike. A middleware finds vLLM's settings and ours in `scope["app"].state.args`.
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
"""Innermost first, as vLLM adds them: the last one sees a request first."""
