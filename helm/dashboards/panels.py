"""Kinds of panels, and the variables above them. Everything is of Grafana's core."""

from grafana_foundation_sdk.builders import bargauge, common as common_builders, dashboard, prometheus
from grafana_foundation_sdk.builders import stat as stat_builder
from grafana_foundation_sdk.builders import table as table_builder
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as prometheus_model

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

BYTES = "decbytes"
RATE = "Bps"
DOLLARS = "currencyUSD"
SHARE = "percentunit"
SECONDS = "s"
COUNT = "short"


def start(name, title, description):
    """An empty dashboard with links to the others and the variables that all have."""
    links = dashboard.DashboardLink("Meridian").type(model.DashboardLinkType.DASHBOARDS).tags(["meridian"])
    links = links.as_dropdown(False).include_vars(True).keep_time(True)
    data_source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    return (
        dashboard.Dashboard(title)
        .uid(f"meridian-{name}")
        .description(description)
        .tags(["meridian"])
        .readonly()
        .time("now-6h", "now")
        .refresh("1m")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(links)
        .with_variable(data_source)
        .with_variable(values("cluster", "Cluster", "meridian_build_info", "cluster"))
    )


def values(name, label, metric, key):
    """A variable with all values of a label. `All` matches series without the label, too."""
    series = metric if key == "cluster" else f'{metric}{{cluster=~"$cluster"}}'
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": f"label_values({series}, {key})", "refId": name})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(text="All", value="$__all"))
    )


def price(name, label, dollars):
    """A variable for the price of 10⁹ bytes, both ends together."""
    return (
        dashboard.TextBoxVariable(name)
        .label(label)
        .description("Dollars for 10⁹ bytes that cross, for both ends together. See docs/dashboards.md.")
        .default_value(dollars)
    )


def prices(board):
    """Adds the variables of prices."""
    board = board.with_variable(price("price", "$ per GB, zones", "0.02"))
    return board.with_variable(price("region_price", "$ per GB, regions", "0.02"))


def _query(expression, legend, ref, instant, as_table=False):
    query = prometheus.Dataquery().expr(expression).ref_id(ref)
    query = query.instant() if instant else query.range()
    if as_table:
        return query.format(prometheus_model.PromQueryFormat.TABLE)
    return query.legend_format(legend)


def _base(panel, title, description, unit):
    return panel.title(title).description(description).datasource(SOURCE).unit(unit)


def _steps(*bounds):
    """Green, then a colour from each bound on."""
    steps = [model.Threshold(value=None, color="green")]
    steps += [model.Threshold(value=value, color=color) for value, color in bounds]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def stat(title, description, unit, expression, *, bounds=(), width=4):
    """One number."""
    panel = _base(stat_builder.Panel(), title, description, unit).span(width).height(4).no_value("none")
    panel = panel.with_target(_query(expression, "", "A", instant=True)).thresholds(_steps(*bounds))
    options = common_builders.ReduceDataOptions().calcs(["lastNotNull"])
    return panel.reduce_options(options).graph_mode(common.BigValueGraphMode.NONE)


def graph(title, description, unit, *series, width=12, stacked=False, limit=None):
    """Lines over time; each of the series is an expression and its legend."""
    panel = _base(timeseries.Panel(), title, description, unit).span(width).height(8).min(0)
    for number, (expression, legend) in enumerate(series):
        panel = panel.with_target(_query(expression, legend, chr(ord("A") + number), instant=False))
    legend = common_builders.VizLegendOptions().show_legend(True)
    legend = legend.display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)
    panel = panel.legend(legend).line_width(1).fill_opacity(30 if stacked else 5)
    if stacked:
        panel = panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if limit is not None:
        panel = panel.max(limit)
    tooltip = common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)
    return panel.tooltip(tooltip.sort(common.SortOrder.DESCENDING))


def bars(title, description, unit, expression, legend, *, width=12):
    """A bar for each series."""
    panel = _base(bargauge.Panel(), title, description, unit).span(width).height(8).min(0)
    panel = panel.with_target(_query(expression, legend, "A", instant=True))
    options = common_builders.ReduceDataOptions().calcs(["lastNotNull"])
    return panel.reduce_options(options).orientation(common.VizOrientation.HORIZONTAL)


_COLORED = {"type": "color-background", "mode": "gradient"}


def _property(name, value):
    return model.DynamicConfigValue(id_val=name, value=value)


def _transform(name, **options):
    return model.DataTransformerConfig(id_val=name, options=options)


def matrix(title, description, unit, expression, *, rows, columns, width=12):
    """A table with a row and a column for each label value, coloured by value."""
    panel = _base(table_builder.Panel(), title, description, unit).span(width).height(9)
    panel = panel.with_target(_query(expression, "", "A", instant=True, as_table=True))
    grouping = {"rowField": rows, "columnField": columns, "valueField": "Value", "emptyValue": "null"}
    panel = panel.with_transformation(_transform("groupingToMatrix", **grouping))
    panel = panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.CONTINUOUS_GR_YL_RD))
    colored = [_property("custom.cellOptions", _COLORED), _property("custom.align", "right")]
    return panel.override_by_field_type("number", colored)


def table(title, description, columns, labels, *, width=24, height=10):
    """A table with a row for each set of labels.

    `columns` has a title, a unit and an expression for each number, the first one sorts; `labels` has the titles of the
    labels.
    """
    panel = _base(table_builder.Panel(), title, description, COUNT).span(width).height(height).filterable(True)
    names = dict(labels)
    for number, (heading, unit, expression) in enumerate(columns):
        ref = chr(ord("A") + number)
        panel = panel.with_target(_query(expression, "", ref, instant=True, as_table=True))
        # A single query's column has no letter.
        names["Value" if len(columns) == 1 else f"Value #{ref}"] = heading
        panel = panel.override_by_name(heading, [_property("unit", unit)])
    panel = panel.with_transformation(_transform("merge")).with_transformation(_organize(names, "Time"))
    gauge = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
    panel = panel.override_by_name(columns[0][0], [_property("custom.cellOptions", gauge)])
    return panel.sort_by([common_builders.TableSortByFieldState().display_name(columns[0][0]).desc(True)])


def list_of(title, description, expression, labels, *, width=12, height=8):
    """A table of label values; the number is left out."""
    panel = _base(table_builder.Panel(), title, description, COUNT).span(width).height(height).filterable(True)
    panel = panel.with_target(_query(expression, "", "A", instant=True, as_table=True))
    return panel.with_transformation(_organize(labels, "Time", "Value"))


def _organize(names, *hidden):
    """Orders and names the columns of a table."""
    order = {name: place for place, name in enumerate(names)}
    options = {"excludeByName": dict.fromkeys(hidden, True), "indexByName": order, "renameByName": dict(names)}
    return _transform("organize", **options)
