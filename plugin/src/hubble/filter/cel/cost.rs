//! How much work an expression can be: some multiply their loops, and a stream looks at every flow.

use cel::{
    IdedExpr,
    common::ast::{EntryExpr, Expr},
};

/// Steps that evaluating an expression may take for a flow.
const STEPS: u64 = 20_000;
/// What the lists of a flow are taken to hold.
const LIST: u64 = 64;

/// Steps, and how long a list may come out.
struct Cost {
    steps: u64,
    size: u64,
}

/// Refuses what takes too long.
///
/// # Errors
/// It does.
pub(super) fn bound(expression: &IdedExpr) -> Result<(), String> {
    let steps = cost(expression).steps;
    if steps > STEPS { Err(format!("the expression takes up to {steps} steps (at most {STEPS})")) } else { Ok(()) }
}

fn cost(expression: &IdedExpr) -> Cost {
    let all = |parts: &mut dyn Iterator<Item = &IdedExpr>| {
        parts.map(cost).fold(Cost { steps: 1, size: 0 }, |sum, part| Cost {
            steps: sum.steps.saturating_add(part.steps),
            size: sum.size.saturating_add(part.size),
        })
    };
    match &expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Cost { steps: 1, size: LIST },
        Expr::Select(select) => Cost { size: LIST, ..all(&mut std::iter::once(&*select.operand)) },
        Expr::Call(call) => all(&mut call.args.iter().chain(call.target.as_deref())),
        Expr::List(list) => Cost { size: list.elements.len() as u64, ..all(&mut list.elements.iter()) },
        Expr::Map(map) => {
            let mut parts = map.entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => [Some(&entry.key), Some(&entry.value)],
                EntryExpr::StructField(field) => [Some(&field.value), None],
            });
            Cost { size: map.entries.len() as u64, ..all(&mut parts.by_ref().flatten()) }
        }
        Expr::Struct(_) => Cost { steps: 1, size: 0 },
        Expr::Comprehension(comprehension) => {
            let range = cost(&comprehension.iter_range);
            let each = cost(&comprehension.loop_cond).steps.saturating_add(cost(&comprehension.loop_step).steps);
            let once = cost(&comprehension.accu_init).steps.saturating_add(cost(&comprehension.result).steps);
            let steps = range.steps.saturating_add(once).saturating_add(range.size.saturating_mul(each));
            Cost { steps, size: range.size }
        }
    }
}
