"""Agents and controller: whether the numbers are complete and up to date."""

from grafana_foundation_sdk.builders import dashboard

import panels as p
import queries as q


def _rate(metric, *matchers):
    return f"rate({q.on_node(metric, *matchers)}[{q.RATE}])"


def _increase(metric, *matchers):
    return f"increase({q.on_node(metric, *matchers)}[{q.RANGE}])"


def _at_leader(metric):
    leader = f"{q.select('meridian_lease_held')} == 1"
    return f"max({q.select(metric)} and on (cluster, instance) {leader})"


def _agents(board):
    seen = f"sum({_rate('meridian_device_seen_bytes_total')}) / sum({_rate('meridian_device_sent_bytes_total')})"
    age = f"time() - {q.on_node('meridian_zone_table_confirmed_timestamp_seconds')}"
    entries = f"{q.on_node('meridian_flow_entries')} / {q.on_node('meridian_flow_entries_limit')}"
    warn, bad = "yellow", "red"
    numbers = [
        ("Agents", "Agents that Prometheus reaches.", p.COUNT, f"count({q.on_node('meridian_build_info')})", ()),
        ("Seen by the hook", "IP bytes that the hook saw, of those that the devices sent, by their own counters.",
         p.SHARE, seen, ()),
        ("Oldest zone table", "Time since the table last matched its source.", p.SECONDS, f"max({age})",
         ((120, warn), (300, bad))),
        ("Longest drain", "Duration of reading the kernel's counters, which happens once a second.", p.SECONDS,
         f"max({q.on_node('meridian_drain_duration_seconds')})", ((0.5, warn), (1, bad))),
        ("Fullest flow map", "Flow entries, of the map's capacity.", p.SHARE, f"max({entries})",
         ((0.7, warn), (0.9, bad))),
        ("Without the controller's feed", "Agents that have a controller but no connection for its table.", p.COUNT,
         f"count({q.on_node('meridian_feed_connected')} == 0)", ((1, bad),)),
    ]
    for title, description, unit, expression, bounds in numbers:
        board = board.with_panel(p.stat(title, description, unit, expression, bounds=bounds))
    return board


def _hooks(board):
    hooks = f"max by (node, hook, reason) ({q.on_node('meridian_hook_info')})"
    seen = f"sum by (node) ({_rate('meridian_device_seen_bytes_total')})"
    sent = f"sum by (node) ({_rate('meridian_device_sent_bytes_total')})"
    changes = [(f"sum by (node) ({_increase(metric)})", f"{{{{node}}}}: {words}") for metric, words in (
        ("meridian_filters_restored_total", "filters attached again"),
        ("meridian_hook_changes_total", "hook changed"),
        ("meridian_hook_steps_refused_total", "step refused"))]
    board = board.with_row(dashboard.Row("Hooks"))
    board = board.with_panel(p.list_of("Hook of each node", "The hook that counts, and the reason for its choice.",
                                       hooks, {"node": "Node", "hook": "Hook", "reason": "Reason"}))
    board = board.with_panel(p.graph(
        "Seen by the hook, of the bytes that the devices sent",
        "About 1 where all packets pass the hook. Much less: packets bypass it, and `meridian check` names another "
        "hook.",
        p.SHARE, (f"{seen} / {sent}", "{{node}}")))
    board = board.with_panel(p.graph(
        "Filters restored, hooks changed", "In the time range before each moment. Filters are attached again because "
        "another program had removed them.", p.COUNT, *changes))
    return board.with_panel(p.graph("Foreign filters", "Other programs' filters that run before Meridian's and can "
                                    "hide packets from it.", p.COUNT, (q.on_node("meridian_foreign_filters"), "{{node}}")))


def _counting(board):
    def noted(unit, reason):
        matcher = f'reason="{reason}"'
        return f"sum by (node) ({_rate(f'meridian_noted_{unit}_total', matcher)})"

    def of_node(reason):
        return f"{noted('bytes', reason)} / sum by (node) ({_rate('meridian_zone_bytes_total')})"

    used = f"{q.on_node('meridian_flow_entries')} / {q.on_node('meridian_flow_entries_limit')}"
    series = f"max by (node, sum) ({q.on_node('meridian_series')} / ({q.on_node('meridian_series_limit')} > 0))"
    board = board.with_row(dashboard.Row("Counting"))
    graphs = [
        ("Drain", "Duration of the last drain. It has a second.", p.SECONDS,
         [(q.on_node("meridian_drain_duration_seconds"), "{{node}}")]),
        ("Flow entries used", "Of the flow maps' capacity. When they are full, new flows count as unattributed.",
         p.SHARE, [(used, "{{node}}")]),
        ("Bytes without a sender", "Of all bytes of the node. `over_share` is the part whose source had used up its "
         "share of the flow map.", p.SHARE, [(of_node("unattributed"), "{{node}}: unattributed"),
                                             (of_node("over_share"), "{{node}}: over_share")]),
        ("Packets without an event", "Packets a second that were counted but not announced, because of the limit of "
         "each CPU (withheld) or a full ring buffer (lost). Bytes are complete; Hubble's flows are not.", "pps",
         [(noted("packets", "event_withheld"), "{{node}}: withheld"),
          (noted("packets", "event_lost"), "{{node}}: lost")]),
        ("Left out of the zone counters", "IP bytes a second by reason, which docs/metrics.md explains.", p.RATE,
         [(f"sum by (reason) ({_rate('meridian_outside_bytes_total')})", "{{reason}}")]),
        ("Counted with a caveat", "IP bytes a second by reason, which docs/metrics.md explains.", p.RATE,
         [(f"sum by (reason) ({_rate('meridian_noted_bytes_total')})", "{{reason}}")]),
        ("Series used", "Of the capacity of each sum. Beyond it, pairs count in `other`.", p.SHARE,
         [(series, "{{node}}: {{sum}}")]),
        ("Flows overwritten before a client read them", "Flows a second, of all clients of Hubble's API.", "cps",
         [(f"sum by (instance) (rate({q.select('meridian_flow_ring_lost_total')}[{q.RATE}]))", "{{instance}}")]),
    ]
    for title, description, unit, lines in graphs:
        board = board.with_panel(p.graph(title, description, unit, *lines))
    return board


def _feed(board):
    age = f"time() - {q.on_node('meridian_zone_table_confirmed_timestamp_seconds')}"
    failures = [(f"sum by (node) ({_increase(metric)})", f"{{{{node}}}}: {words}") for metric, words in (
        ("meridian_feed_failures_total", "feed"), ("meridian_reports_failures_total", "reports"))]
    of_refused = 'result="refused"'
    refused = f"sum by (node) ({_increase('meridian_zone_table_reloads_total', of_refused)})"
    board = board.with_row(dashboard.Row("Zone tables and reports of the agents"))
    board = board.with_panel(p.graph("Age of the zone table", "Time since it last matched its source: the controller's "
                                     "feed, or the file.", p.SECONDS, (age, "{{node}}")))
    board = board.with_panel(p.graph("Failed connections", "To the controller, in the time range before each moment.",
                                     p.COUNT, *failures))
    board = board.with_panel(p.graph("Refused zone tables", "In the time range before each moment; the agent's log "
                                     "names the line.", p.COUNT, (refused, "{{node}}")))
    return board.with_panel(p.graph("Last report accepted", "1 if the controller accepted the agent's last report.",
                                    p.COUNT, (q.on_node("meridian_reports_connected"), "{{node}}"), limit=1))


def _controller(board):
    bad = ((1, "red"),)
    numbers = [
        ("Agents connected", "To all replicas of the controller.", f"sum({q.select('meridian_feed_agents')})", ()),
        ("Agents behind", "Agents that have not yet acknowledged the latest table.",
         f"sum({q.select('meridian_feed_agents_behind')})", ((1, "yellow"),)),
        ("Nodes without agent", "Their traffic counts at the nodes that receive it.",
         f"max({q.select('meridian_nodes_without_agent')})", ((1, "yellow"),)),
        ("Nodes without zone", "The traffic of their pods counts as unknown.",
         f"max({q.select('meridian_nodes_without_zone')})", bad),
        ("Prefixes in conflict", "Prefixes about whose zone objects disagree; they count as unknown.",
         f"max({q.select('meridian_table_conflicts')})", bad),
        ("Silent nodes", "Nodes in the leader's totals without a report for a minute.",
         _at_leader("meridian_reporting_nodes_silent"), bad),
    ]
    board = board.with_row(dashboard.Row("Controller"))
    for title, description, expression, bounds in numbers:
        board = board.with_panel(p.stat(title, description, p.COUNT, expression, bounds=bounds))
    return board


def _controller_over_time(board):
    def by_instance(metric, by="instance"):
        return f"sum by ({by}) (rate({q.select(metric)}[{q.RATE}]))"

    failing = 'state=~"failing|forbidden"'
    watches = f"max by (kind, state) ({q.select('meridian_watch_state', failing)}) == 1"
    writes = f"sum by (instance, result) (increase({q.select('meridian_history_writes_total')}[{q.RANGE}]))"
    graphs = [
        ("Reports", "Reports a second that the leader accepted.", "cps",
         [(by_instance("meridian_reports_total"), "{{instance}}")]),
        ("Refused reports and agents", "Streams a second, refused or ended.", "cps",
         [(by_instance("meridian_reports_refused_total"), "{{instance}}: reports"),
          (by_instance("meridian_feed_refused_total", "instance, reason"), "{{instance}}: {{reason}}")]),
        ("History: hours and days written", "In the time range before each moment. A failed write is tried again.",
         p.COUNT, [(writes, "{{instance}}: {{result}}")]),
        ("History: size on disk", "Of each replica, or of an agent without a controller.", p.BYTES,
         [(q.select("meridian_history_size_bytes"), "{{instance}}")]),
        ("Watches that fail", "1 for each kind of object that the controller can't read at the moment.", p.COUNT,
         [(watches, "{{kind}}: {{state}}")]),
        ("Replica that holds the Lease", "1 at the leader, which adds up the reports.", p.COUNT,
         [(q.select("meridian_lease_held"), "{{instance}}")]),
        ("Zone table", "Prefixes and addresses that the controller sends to agents.", p.COUNT,
         [(f"max({q.select('meridian_table_prefixes')})", "prefixes"),
          (f"max({q.select('meridian_table_addresses')})", "addresses")]),
        ("Certificates", "Time until a server's certificate expires.", p.SECONDS,
         [(f"min by (instance, server) ({q.select('meridian_tls_certificate_expiry_timestamp_seconds')}) - time()",
           "{{instance}}: {{server}}")]),
    ]
    for title, description, unit, lines in graphs:
        board = board.with_panel(p.graph(title, description, unit, *lines))
    return board


def build():
    """The dashboard."""
    board = p.start("agents", "Meridian / Agents and controller", "Whether the numbers are complete and up to date.")
    board = board.with_variable(p.values("node", "Node", "meridian_build_info", "node"))
    for part in (_agents, _hooks, _counting, _feed, _controller, _controller_over_time):
        board = part(board)
    return board
