//! Filters by CEL expression over `_flow`: one flow, with the types of its message.
//!
//! The library has no types before evaluation. So expressions are type-checked here first, as Hubble's server does:
//! an expression that is not a bool, names an unknown field or compares a string with a number is refused with the
//! server's error text. The check also resolves paths into the flow, so evaluation reads only those fields of the
//! encoded flow.

mod check;
mod cost;
mod declarations;
mod invalid;
mod program;
mod types;
mod value;

pub use invalid::InvalidExpression;

use super::field::SizedCheck;
use crate::flows::Encoded;
use cel::{
    Context, Env, Value,
    common::{
        types::{CelBool, CelString},
        value::CowVal,
    },
    context::VariableResolver,
};
use program::{PATH, PATTERN, Pattern, Program};
use std::sync::{Arc, LazyLock};

/// The longest expression that is accepted.
const LONGEST: usize = 4096;

/// The memory of an expression for each of its bytes, at most: `1+1+1` has a call with two arguments for each two.
const BYTES_FOR_EACH: usize = 256;

/// The functions of the language, and `matches` with a pattern compiled in advance.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    fn matches(text: &CelString<'_>, pattern: &Pattern) -> CelBool {
        CelBool::from(pattern.0.is_match(text.inner()))
    }
    // The overload is added once, so it can't fail.
    let _ = cel::add_overload!(env, fn matches: (CelString, Pattern) -> CelBool);
    Arc::new(env)
});

/// Passes a flow if any expression is true; an expression that fails counts as false.
pub(super) fn check(expressions: &[String]) -> Result<SizedCheck, InvalidExpression> {
    let programs: Vec<Program> = expressions.iter().map(|text| Program::new(text)).collect::<Result<_, _>>()?;
    let text: usize = expressions.iter().map(String::len).sum();
    let patterns: usize = programs.iter().flat_map(|program| &program.patterns).map(|pattern| pattern.0.bytes()).sum();
    let check = Box::new(move |flow: &Encoded| {
        for program in &programs {
            match program.evaluate(flow) {
                Some(true) => return true,
                Some(false) => {}
                None => return false,
            }
        }
        false
    });
    Ok(SizedCheck { check, bytes: BYTES_FOR_EACH * text + patterns })
}

impl Program {
    fn new(text: &str) -> Result<Self, InvalidExpression> {
        if text.len() > LONGEST {
            return Err(InvalidExpression::Long { bytes: text.len(), most: LONGEST });
        }
        check::check(text)
    }

    /// The expression's value for a flow; `None` if it fails.
    fn evaluate(&self, flow: &Encoded) -> Option<bool> {
        let names = Names { program: self, flow };
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.set_variable_resolver(&names);
        let value = Value::resolve_val(&self.expression, &context).ok()?;
        value.downcast_ref::<CelBool>().map(|value| *value.inner())
    }
}

struct Names<'n> {
    program: &'n Program,
    flow: &'n Encoded,
}

impl VariableResolver for Names<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(index) = variable.strip_prefix(PATH) {
            let path = self.program.paths.get(index.parse::<usize>().ok()?)?;
            return Some(CowVal::Owned(value::of_path(self.flow, path)));
        }
        let index = variable.strip_prefix(PATTERN)?.parse::<usize>().ok()?;
        self.program.patterns.get(index).map(|pattern| CowVal::Borrowed(pattern))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::Flow;

    fn refused(text: &str) -> String {
        let error = check(&[text.to_owned()]).err().unwrap_or_else(|| panic!("{text} is taken"));
        error.to_string()
    }

    fn verdict(text: &str) -> bool {
        let flow = Flow { uuid: "u".into(), node_name: "n".into(), ..Flow::default() };
        (check(&[text.to_owned()]).unwrap().check)(&flow.into())
    }

    #[test]
    fn an_expression_is_bounded_in_length_depth_and_work() {
        assert!(refused(&" ".repeat(LONGEST + 1)).contains("the expression has 4097 bytes (at most 4096)"));
        assert!(refused(&format!("{}0 == 0", "1+".repeat(2000))).contains("the expression is deeper than 32"));
        assert!(refused(&format!("{}1{} == 1", "(".repeat(2000), ")".repeat(2000))).contains("ERROR: <input>"));
        let list = format!("[{}1]", "1,".repeat(200));
        let loops = format!("{list}.all(a, {list}.all(b, {list}.all(c, a == b)))");
        assert!(refused(&loops).contains("steps (at most 20000)"), "{}", refused(&loops));
        // A list inside a list with nested loops over it, then lists and texts that grow.
        let inner = format!("[[{}1]].all(a, a.all(b, a.all(c, b == c)))", "1,".repeat(1000));
        assert!(refused(&inner).contains("steps (at most 20000)"), "{}", refused(&inner));
        for first in ["[[0]]", "['x']"] {
            let doubled = format!("{first}{}.size() == 1", ".map(a, a + a)".repeat(40));
            let refused = refused(&doubled);
            assert!(refused.contains("deeper than") || refused.contains("elements (at most 65536)"), "{refused}");
        }
        let doubled = format!("['0123456789abcdef']{}.size() == 1", ".map(a, a + a)".repeat(13));
        assert!(refused(&doubled).contains("elements (at most 65536)"), "{}", refused(&doubled));
        let addresses = format!("[{}'10.0.0.1'].exists(ip, ip == _flow.IP.source)", "'10.0.0.2', ".repeat(100));
        assert!(!verdict(&addresses));
        assert!(verdict("[1].exists(_flow, _flow == 1)"), "a variable of that name");
        // At the limits of depth and length, on a stack of the usual size.
        assert!(verdict(&format!("{}0 == 30", "1+".repeat(30))));
        assert!(verdict(&format!("{}_flow.uuid == 'u'", "_flow.uuid == 'x' || ".repeat(100))));
        assert!(verdict("[1,2,3].all(a, [1,2,3].exists(b, a == b))"));
    }

    #[test]
    fn an_overflow_fails_and_does_not_panic() {
        for text in [
            "9223372036854775807 + 1 == 0",
            "-9223372036854775807 - 2 == 0",
            "(-9223372036854775807 - 1) / -1 == 0",
            "(-9223372036854775807 - 1) % -1 == 1",
            "-(-9223372036854775807 - 1) == 0",
            "9223372036854775807 * 2 == 0",
            "18446744073709551615u + 1u == 0u",
            "0u - 1u == 0u",
            "1 % 0 == 0",
            "uint(-1) == 0u",
            "int(1e300) == 0",
            "uint(-1.0) == 0u",
            "int(18446744073709551615u) == 0",
            "[1][-1] == 0",
            "[1][9223372036854775807] == 0",
            "_flow.time + duration('9223372036s') < _flow.time",
            "_flow.time - duration('9223372036s') - duration('9223372036s') > _flow.time",
            "timestamp('9999-12-31T23:59:59Z') + duration('9223372036s') < _flow.time",
            "duration('9223372036s') + duration('9223372036s') < duration('1s')",
            "duration(9223372036854775807) < duration('1s')",
            "timestamp(9223372036854775807) < _flow.time",
            "duration('99999999999999999999s') < duration('1s')",
            "timestamp('nonsense') < _flow.time",
            "_flow.time.getHours('nowhere') == 1",
            "int('x') == 0",
            "bytes('x') == b'y'",
        ] {
            assert!(!verdict(text), "{text}");
        }
    }

    #[test]
    fn a_pattern_is_bounded_and_compiled_first() {
        assert!(verdict("_flow.uuid.matches('^u$') && _flow.uuid.matches('u')"));
        assert!(refused("_flow.uuid.matches('(')").contains("error parsing regexp"));
        assert!(refused(r"_flow.uuid.matches('(\\pL{100}){100}')").contains("error parsing regexp"));
        assert!(refused("_flow.uuid.matches(_flow.uuid)").contains("must be a constant"));
        assert!(refused(&["_flow.uuid.matches('u')"; 5].join(" && ")).contains("more than 4 patterns"));
    }

    #[test]
    fn one_expression_is_enough_and_one_that_fails_ends_it() {
        let any = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            (check(&texts).unwrap().check)(&Flow::default().into())
        };
        assert!(any(&["false", "true"]));
        assert!(!any(&["false", "false"]));
        assert!(!any(&["1 / 0 == 1", "true"]), "as in Hubble");
    }
}
