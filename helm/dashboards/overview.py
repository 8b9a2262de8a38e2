"""The overview: how much crosses zones, between which zones, what it costs, and who sends it."""

from grafana_foundation_sdk.builders import dashboard

import panels as p
import queries as q


def _totals(board):
    crossing = q.total(q.zone_bytes("increase", q.RANGE, q.CROSSING))
    everything = q.total(q.zone_bytes("increase", q.RANGE))
    unknown = q.total(q.zone_bytes("increase", q.RANGE, 'locality="unknown"'))
    cost = q.total(q.priced(q.total(q.zone_bytes("increase", q.RANGE, q.CROSSING), "locality")))
    unattributed = q.total(q.window("increase", "meridian_noted_bytes_total", ['reason="unattributed"'], q.RANGE))
    of_cluster = q.total(q.window("increase", "meridian_zone_bytes_total", [], q.RANGE))
    month = f"{cost} / $__range_s * {q.MONTH_SECONDS}"
    numbers = [
        ("Bytes across zones", "IP bytes on the wire between zones and between regions, in the dashboard's time range.",
         p.BYTES, crossing, ()),
        ("Share across zones", "Bytes across zones and regions, of all bytes that left a node or came from an external "
         "prefix.", p.SHARE, f"{crossing} / {everything}", ()),
        ("Cost", "Bytes across zones times the price per GB, and bytes across regions times theirs. Both prices are "
         "variables above.", p.DOLLARS, cost, ()),
        ("Cost of a month at this rate", "The cost, scaled to 730 hours.", p.DOLLARS, month, ()),
        ("Share with an unknown zone", "Bytes of which one end has no known zone. They have no price.", p.SHARE,
         f"{unknown} / {everything}", ((0.05, "yellow"), (0.2, "red"))),
        ("Share without a sender", "Bytes that count in the right zones but in no flow entry, because the flow map was "
         "full or the source had used up its share. Not filtered by zone.", p.SHARE, f"{unattributed} / {of_cluster}",
         ((0.001, "yellow"), (0.01, "red"))),
    ]
    for title, description, unit, expression, bounds in numbers:
        board = board.with_panel(p.stat(title, description, unit, expression, bounds=bounds))
    return board


def _zones(board):
    between = q.total(q.zone_bytes("increase", q.RANGE, 'locality!="same-zone"'), q.ZONES)
    by_pair = q.total(q.zone_bytes("rate", q.RATE, q.CROSSING), q.ZONES)
    by_locality = q.total(q.zone_bytes("rate", q.RATE), "locality")
    cost = q.total(q.priced(q.total(q.zone_bytes("rate", q.RATE, q.CROSSING), f"{q.ZONES}, locality")), q.ZONES)
    board = board.with_row(dashboard.Row("Zones"))
    board = board.with_panel(p.matrix(
        "From zone (row) to zone (column)",
        "IP bytes in the time range. The diagonal is empty: traffic inside a zone is left out. `unknown` and "
        "`internet` are columns and rows of their own.", p.BYTES, between, rows="source_zone", columns="destination_zone"))
    board = board.with_panel(p.graph("By locality", "IP bytes a second, by where they went.", p.RATE,
                                     (by_locality, "{{locality}}"), stacked=True))
    board = board.with_panel(p.graph("Across zones, by zone pair", "IP bytes a second.", p.RATE,
                                     (by_pair, "{{source_zone}} → {{destination_zone}}"), stacked=True))
    return board.with_panel(p.graph("Cost an hour, by zone pair", "Bytes an hour times the prices above.", p.DOLLARS,
                                    (f"{cost} * 3600", "{{source_zone}} → {{destination_zone}}"), stacked=True))


def _senders(board):
    def traffic(*matchers):
        return q.workload_bytes("increase", q.RANGE, *matchers, ends=None)

    top = f"topk(25, {q.total(traffic(q.CROSSING), f'{q.WORKLOADS}, locality')})"
    share = f"{top} / scalar({q.total(traffic(q.CROSSING))})"
    by_namespace = q.total(q.namespace_bytes("increase", q.RANGE, q.CROSSING, ends=None), q.NAMESPACES)
    board = board.with_row(dashboard.Row("Senders (all zones)"))
    board = board.with_panel(p.table(
        "Top pairs of workloads across zones",
        "The 25 pairs with the most IP bytes in the time range. An empty workload is a node or an unknown address.",
        [("Bytes", p.BYTES, top), ("Cost", p.DOLLARS, q.priced(top)), ("Share", p.SHARE, share)],
        {"source_namespace": "From namespace", "source_workload": "From workload", "destination_namespace":
         "To namespace", "destination_workload": "To workload", "locality": "Locality"}, width=16))
    return board.with_panel(p.bars("Across zones, by namespace", "The 15 pairs of namespaces with the most IP bytes.",
                                   p.BYTES, f"topk(15, {by_namespace})",
                                   "{{source_namespace}} → {{destination_namespace}}", width=8))


def build():
    """The dashboard."""
    board = p.start("overview", "Meridian / Overview", "Traffic between zones: how much, where, and what it costs.")
    board = board.with_variable(p.values("zone", "Zone", "meridian_zone_bytes_total", "source_zone"))
    return _senders(_zones(_totals(p.prices(board))))
