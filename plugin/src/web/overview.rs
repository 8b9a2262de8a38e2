//! The page as the server sends it: the matrix of zones as a table, so that there is something to read at once and
//! without scripts. The script replaces it with all views.

use super::{
    files::{SCRIPT, STYLE},
    html::Escaped,
};
use crate::{
    cost::Money,
    fnv::fnv1a,
    statement::{Row, Statement, Sum},
    units::human,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// Zones of the table; those beyond are in the API.
const MAX_ZONES: usize = 32;

/// The page with a statement by pair of zones, or with the reason for having none.
pub(super) fn html(statement: Result<Statement, String>) -> String {
    let content = match &statement {
        Ok(statement) => matrix(statement),
        Err(reason) => format!("<p role=\"status\">{}</p>\n", Escaped(reason)),
    };
    // A browser that has another version of the files loads them anew.
    let (script, style) = (fnv1a(SCRIPT.bytes()), fnv1a(STYLE.bytes()));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Meridian</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"icon.svg\" type=\"image/svg+xml\">\n\
         <link rel=\"stylesheet\" href=\"page.css?v={style:x}\">\n\
         <script src=\"page.js?v={script:x}\" defer></script>\n</head>\n<body>\n<div id=\"app\">\n\
         <header class=\"bar\"><p class=\"brand\">Meridian</p></header>\n<main>\n<h1>Traffic between zones</h1>\n\
         {content}<noscript><p>Without scripts this table is all there is to see. \
         <a href=\"api/v1/report?by=workload&amp;output=markdown\">By workload</a>, \
         <a href=\"api/v1/report?by=workload-pair&amp;output=csv\">all pairs as CSV</a>.</p></noscript>\n\
         </main>\n</div>\n</body>\n</html>\n"
    )
}

fn matrix(statement: &Statement) -> String {
    let part = |row: &Row, name: &str| row.key.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let mut cells: BTreeMap<(String, String), (Sum, String)> = BTreeMap::new();
    for row in &statement.rows {
        if let (Some(source), Some(destination), Some(locality)) =
            (part(row, "source_zone"), part(row, "destination_zone"), part(row, "locality"))
        {
            cells.entry((source, destination)).or_insert_with(|| (Sum::default(), locality)).0.add(&row.sum);
        }
    }
    if cells.is_empty() {
        return "<p role=\"status\">Nothing was recorded in this time.</p>\n".to_owned();
    }
    let names = |of: fn(&(String, String)) -> &String| -> Vec<&String> {
        let names: BTreeSet<&String> = cells.keys().map(of).collect();
        names.into_iter().take(MAX_ZONES).collect()
    };
    let (sources, destinations) = (names(|pair| &pair.0), names(|pair| &pair.1));
    let mut text = String::from(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Traffic by zone\">\n<table class=\"matrix\">\n\
         <caption>Bytes from the zone of a row to the zone of a column, and dollars a month at this rate</caption>\n\
         <thead><tr><th scope=\"col\">from \\ to</th>",
    );
    for destination in &destinations {
        // Writing to a string can't fail.
        let _ = write!(text, "<th scope=\"col\"><bdi>{}</bdi></th>", Escaped(destination));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for source in sources {
        let _ = write!(text, "<tr><th scope=\"row\"><bdi>{}</bdi></th>", Escaped(source));
        for destination in &destinations {
            match cells.get(&(source.clone(), (*destination).clone())) {
                Some((sum, locality)) => text.push_str(&cell(statement, sum, locality)),
                None => text.push_str("<td class=\"none\">–</td>"),
            }
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody>\n</table>\n</div>\n");
    text
}

fn cell(statement: &Statement, sum: &Sum, locality: &str) -> String {
    let money = match statement.monthly(sum) {
        _ if sum.unpriced_bytes > 0 && sum.cost == Money::ZERO => "unpriced".to_owned(),
        Some(cost) => format!("${}", cost.human()),
        None => String::new(),
    };
    format!(
        "<td class=\"{locality}\"><span class=\"bytes\">{}</span><span class=\"money\">{money}</span></td>",
        human(sum.counter.bytes)
    )
}
