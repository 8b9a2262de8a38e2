"""PromQL: selectors of Meridian's metrics and the expressions that several panels share.

Counters are always read through `increase` or `rate` of one plain selector, so that the test can remove the window and
compare the totals with the wire.
"""

RANGE = "$__range"
RATE = "$__rate_interval"

CROSSING = 'locality=~"cross-zone|cross-region"'
ZONES = "source_zone, destination_zone"
NAMESPACES = "source_namespace, destination_namespace"
WORKLOADS = "source_namespace, source_workload, destination_namespace, destination_workload"

# As the cost report: a month of 730 hours.
MONTH_SECONDS = 730 * 3600


def select(metric, *matchers):
    """The series of a metric in the chosen cluster. Without a label `cluster`, the matcher `.*` takes all."""
    return metric + "{" + ", ".join(['cluster=~"$cluster"', *matchers]) + "}"


def on_node(metric, *matchers):
    """The series of a metric at the chosen nodes."""
    return select(metric, 'node=~"$node"', *matchers)


def window(function, metric, matchers, span, ends=None):
    """`increase` or `rate` of a counter. `ends` names a label and its variable: either end of the traffic has it."""
    if ends is None:
        return f"{function}({select(metric, *matchers)}[{span}])"
    label, variable = ends
    sides = [f'{side}_{label}=~"${variable}"' for side in ("source", "destination")]
    source, destination = (f"{function}({select(metric, side, *matchers)}[{span}])" for side in sides)
    return f"({source} or {destination})"


def zone_bytes(function, span, *matchers):
    """Bytes by zone pair, with the chosen zone at either end."""
    return window(function, "meridian_zone_bytes_total", matchers, span, ("zone", "zone"))


def workload_bytes(function, span, *matchers, ends=("namespace", "namespace")):
    """Bytes by pair of workloads, with the chosen namespace at either end."""
    return window(function, "meridian_workload_bytes_total", matchers, span, ends)


def namespace_bytes(function, span, *matchers, ends=("namespace", "namespace")):
    """Bytes by pair of namespaces, with the chosen namespace at either end."""
    return window(function, "meridian_namespace_bytes_total", matchers, span, ends)


def total(expression, by=None):
    """A sum, in all or by labels."""
    return f"sum({expression})" if by is None else f"sum by ({by}) ({expression})"


def priced(expression):
    """Dollars for bytes that have the label `locality`; bytes of other localities have no price and no result."""
    prices = " or ".join(
        f'label_replace(vector(({price}) / 1e9), "locality", "{locality}", "", "")'
        for locality, price in (("cross-zone", "$price"), ("cross-region", "$region_price"))
    )
    return f"{expression} * on (locality) group_left () ({prices})"


def one_end(side, function, metric, matchers, span):
    """Bytes by namespace and workload at one end of the traffic, under the same labels for both ends."""
    labels = f"{side}_namespace, {side}_workload, locality"
    chosen = [f'{side}_namespace=~"$namespace"', *matchers]
    by_side = total(window(function, metric, chosen, span), labels)
    for label in ("namespace", "workload"):
        by_side = f'label_replace({by_side}, "{label}", "$1", "{side}_{label}", "(.*)")'
    return total(by_side, "namespace, workload, locality")
