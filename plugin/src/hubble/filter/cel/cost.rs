//! Bounds the work and memory of an expression: loops multiply, sums grow, and a stream evaluates the expression
//! for every flow.

use super::invalid::InvalidExpression;
use cel::{
    IdedExpr,
    common::ast::{
        ComprehensionExpr, EntryExpr, Expr, LiteralValue,
        operators::{ADD, CONDITIONAL, INDEX},
    },
};

/// The limit of steps to evaluate an expression for a flow.
const STEPS: u64 = 20_000;
/// The limit of the size of an intermediate value.
const SIZE: u64 = 65_536;
/// The assumed size of a flow's values: elements of a list, characters of a string.
const OF_FLOW: u64 = 64;
/// The elements or characters copied or compared in one step.
const A_STEP: u64 = 32;

/// The estimated cost of an expression.
#[derive(Clone, Copy)]
struct Cost {
    steps: u64,
    /// The number of elements in the list, which is the number of steps of a loop over it.
    count: u64,
    /// The total size, nested values included: elements and characters.
    size: u64,
}

/// Refuses expressions that take too long or too much memory.
///
/// # Errors
/// The expression exceeds a limit.
pub(super) fn bound(expression: &IdedExpr) -> Result<(), InvalidExpression> {
    let steps = Estimate::default().cost(expression)?.steps;
    if steps > STEPS { Err(InvalidExpression::Steps { steps, most: STEPS }) } else { Ok(()) }
}

/// The variables of comprehensions, the innermost last.
#[derive(Default)]
struct Estimate<'e>(Vec<(&'e str, Cost)>);

impl<'e> Estimate<'e> {
    fn cost(&mut self, expression: &'e IdedExpr) -> Result<Cost, InvalidExpression> {
        let flat = |size| Cost { steps: 1, count: size, size };
        let cost = match &expression.expr {
            Expr::Unspecified | Expr::Struct(_) => flat(1),
            Expr::Literal(LiteralValue::String(text)) => flat(1 + text.inner().len() as u64),
            Expr::Literal(LiteralValue::Bytes(bytes)) => flat(1 + bytes.inner().len() as u64),
            Expr::Literal(_) => flat(1),
            Expr::Ident(name) => {
                let known = self.0.iter().rev().find(|(known, _)| known == name);
                known.map_or(flat(OF_FLOW), |(_, cost)| *cost)
            }
            Expr::Select(select) => {
                let Cost { steps, size, .. } = self.cost(&select.operand)?;
                Cost { steps: steps.saturating_add(1), ..flat(size.max(OF_FLOW)) }
            }
            Expr::Call(call) => {
                let all = self.sum(call.target.as_deref().into_iter().chain(&call.args))?;
                let steps = all.steps.saturating_add(all.size / A_STEP);
                match call.func_name.as_str() {
                    ADD | CONDITIONAL | INDEX | "dyn" => Cost { steps, ..flat(all.size) },
                    "string" | "bytes" => Cost { steps, ..flat(all.size.saturating_add(OF_FLOW)) },
                    // Bools, numbers and times.
                    _ => Cost { steps, ..flat(1) },
                }
            }
            Expr::List(list) => {
                let all = self.sum(&list.elements)?;
                Cost { count: list.elements.len() as u64, ..all }
            }
            Expr::Map(map) => {
                let parts = map.entries.iter().flat_map(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) => [Some(&entry.key), Some(&entry.value)],
                    EntryExpr::StructField(field) => [Some(&field.value), None],
                });
                let all = self.sum(parts.flatten())?;
                Cost { count: map.entries.len() as u64, ..all }
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension)?,
        };
        if cost.size > SIZE {
            return Err(InvalidExpression::Size { elements: cost.size, most: SIZE });
        }
        Ok(cost)
    }

    fn sum(&mut self, parts: impl IntoIterator<Item = &'e IdedExpr>) -> Result<Cost, InvalidExpression> {
        parts.into_iter().try_fold(Cost { steps: 1, count: 0, size: 1 }, |sum, part| {
            let part = self.cost(part)?;
            Ok(Cost {
                steps: sum.steps.saturating_add(part.steps),
                count: sum.count.saturating_add(part.count),
                size: sum.size.saturating_add(part.size),
            })
        })
    }

    fn comprehension(&mut self, of: &'e ComprehensionExpr) -> Result<Cost, InvalidExpression> {
        let (range, first) = (self.cost(&of.iter_range)?, self.cost(&of.accu_init)?);
        // One element may be as large as the whole list.
        let element = Cost { steps: 1, count: range.size, size: range.size };
        let variables = std::iter::once(&of.iter_var).chain(&of.iter_var2).map(|name| (name.as_str(), element));
        let outside = self.0.len();
        self.0.extend(variables);
        // The cost that one step adds to the accumulator.
        self.0.push((&of.accu_var, Cost { steps: 1, count: 0, size: 0 }));
        let (more, step) = (self.cost(&of.loop_cond)?, self.cost(&of.loop_step)?);
        self.0.truncate(outside);
        let times = |each: u64| range.count.saturating_mul(each);
        let grown = Cost {
            steps: 1,
            count: first.count.saturating_add(times(step.count)),
            size: first.size.saturating_add(times(step.size)),
        };
        self.0.push((&of.accu_var, grown));
        let result = self.cost(&of.result);
        self.0.pop();
        let result = result?;
        let loops = times(more.steps.saturating_add(step.steps));
        let steps = [first.steps, loops, result.steps].into_iter().fold(range.steps, u64::saturating_add);
        Ok(Cost { steps, ..result })
    }
}
