"""Namespaces and workloads: who sends across zones, who receives, and what that costs each of them."""

from grafana_foundation_sdk.builders import dashboard

import panels as p
import queries as q

WORKLOADS = "meridian_workload_bytes_total"
PODS = "meridian_pod_bytes_total"


def _side(side, *matchers):
    return q.window("increase", WORKLOADS, [f'{side}_namespace=~"$namespace"', *matchers], q.RANGE)


def _totals(board):
    sent, received = (q.total(_side(side, q.CROSSING)) for side in ("source", "destination"))
    all_sent = q.total(_side("source"))
    cost = q.total(q.priced(q.total(q.workload_bytes("increase", q.RANGE, q.CROSSING), "locality")))
    unknown = q.total(_side("source", 'locality="unknown"'))
    numbers = [
        ("Sent across zones", "IP bytes that the chosen namespaces sent to other zones and regions in the time range.",
         p.BYTES, sent),
        ("Received across zones", "IP bytes that they received from there.", p.BYTES, received),
        ("Share of sent bytes", "Bytes sent across zones and regions, of all bytes sent.", p.SHARE,
         f"{sent} / {all_sent}"),
        ("Cost", "Bytes sent or received across zones and regions, times the prices above. A byte between two chosen "
         "namespaces counts once.", p.DOLLARS, cost),
        ("Cost of a month at this rate", "The cost, scaled to 730 hours.", p.DOLLARS,
         f"{cost} / $__range_s * {q.MONTH_SECONDS}"),
        ("Share to unknown zones", "Bytes sent to addresses without a known zone. They have no price.", p.SHARE,
         f"{unknown} / {all_sent}"),
    ]
    for title, description, unit, expression in numbers:
        board = board.with_panel(p.stat(title, description, unit, expression))
    return board


def _namespaces(board):
    crossing = q.total(q.namespace_bytes("increase", q.RANGE, q.CROSSING), q.NAMESPACES)
    rate = q.total(q.namespace_bytes("rate", q.RATE, q.CROSSING), "source_namespace")
    board = board.with_row(dashboard.Row("Namespaces"))
    board = board.with_panel(p.matrix(
        "From namespace (row) to namespace (column), across zones",
        "IP bytes in the time range. Nodes and unknown addresses have an empty name.", p.BYTES, crossing,
        rows="source_namespace", columns="destination_namespace"))
    return board.with_panel(p.graph("Across zones, by sending namespace", "IP bytes a second.", p.RATE,
                                    (f"topk(10, {rate})", "{{source_namespace}}"), stacked=True))


def _workloads(board):
    by = "namespace, workload"
    sent, received = (q.one_end(side, "increase", WORKLOADS, [q.CROSSING], q.RANGE)
                      for side in ("source", "destination"))
    # Each end has half of the price, so the sum over all workloads is the whole.
    of_receivers = f'label_replace({q.priced(received)} / 2, "end", "receiver", "", "")'
    cost = q.total(f"{q.priced(sent)} / 2 or {of_receivers}", by)
    pairs = q.total(q.workload_bytes("increase", q.RANGE, q.CROSSING), f"{q.WORKLOADS}, locality")
    top = f"topk(50, {pairs})"
    rate = q.total(q.workload_bytes("rate", q.RATE, q.CROSSING), q.WORKLOADS)
    board = board.with_row(dashboard.Row("Workloads"))
    board = board.with_panel(p.table(
        "Workloads", "IP bytes across zones and regions in the time range. Of the cost of a byte, each end has half.",
        [("Cost", p.DOLLARS, cost), ("Sent", p.BYTES, q.total(sent, by)), ("Received", p.BYTES, q.total(received, by))],
        {"namespace": "Namespace", "workload": "Workload"}, width=12))
    board = board.with_panel(p.graph(
        "Across zones, by pair of workloads", "IP bytes a second of the ten largest pairs at each moment.", p.RATE,
        (f"topk(10, {rate})", "{{source_namespace}}/{{source_workload}} → "
         "{{destination_namespace}}/{{destination_workload}}")))
    return board.with_panel(p.table(
        "Pairs of workloads", "The 50 pairs with the most IP bytes across zones and regions in the time range.",
        [("Bytes", p.BYTES, top), ("Cost", p.DOLLARS, q.priced(top))],
        {"source_namespace": "From namespace", "source_workload": "From workload", "destination_namespace":
         "To namespace", "destination_workload": "To workload", "locality": "Locality"}))


def _pods(board):
    in_zones = [q.CROSSING, 'source_zone=~"$zone"', 'source_namespace=~"$namespace"']
    labels = "source_namespace, source_pod, source_zone, destination_namespace, destination_pod, destination_zone"
    top = f"topk(50, {q.total(q.window('increase', PODS, in_zones, q.RANGE), labels)})"
    by_zone = q.total(q.window("rate", PODS, in_zones, q.RATE), q.ZONES)
    board = board.with_row(dashboard.Row("Pods (only with metrics.pods in the chart)"))
    board = board.with_panel(p.table(
        "Pairs of pods", "The 50 pairs with the most IP bytes across zones, sent from the chosen zones.",
        [("Bytes", p.BYTES, top)],
        {"source_namespace": "From namespace", "source_pod": "From pod", "source_zone": "From zone",
         "destination_namespace": "To namespace", "destination_pod": "To pod", "destination_zone": "To zone"},
        width=16))
    return board.with_panel(p.graph("Sent across zones, by zone pair", "IP bytes a second, sent from the chosen zones.",
                                    p.RATE, (by_zone, "{{source_zone}} → {{destination_zone}}"), width=8))


def build():
    """The dashboard."""
    board = p.start("workloads", "Meridian / Namespaces and workloads", "Who sends traffic across zones, and to whom.")
    namespaces = p.values("namespace", "Namespace", "meridian_namespace_bytes_total", "source_namespace")
    board = board.with_variable(namespaces)
    board = board.with_variable(p.values("zone", "Zone (pods only)", "meridian_zone_bytes_total", "source_zone"))
    return _pods(_workloads(_namespaces(_totals(p.prices(board)))))
