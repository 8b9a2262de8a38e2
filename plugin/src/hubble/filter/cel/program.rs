//! A checked expression, in which names stand for paths into the flow and for patterns.

use super::super::go::{self, InvalidRegexp, Regexp};
use crate::proto::schema::FieldType;
use cel::{
    IdedExpr,
    common::value::{StaticVal, Val},
};
use std::any::Any;

/// An expression that has been checked.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub(super) expression: IdedExpr,
    pub(super) paths: Vec<Path>,
    pub(super) patterns: Vec<Pattern>,
}

/// A path from the flow through messages to a field.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) fields: Vec<&'static FieldType>,
    /// Whether the path tests the field for presence instead of reading it.
    pub(super) is_test: bool,
}

/// A regular expression.
#[derive(Clone, Debug)]
pub(super) struct Pattern(pub(super) Regexp);

/// Prefixes of the names that the check inserts; no identifier of the language starts with them.
pub(super) const PATH: char = '#';
pub(super) const PATTERN: char = '~';

static PATTERN_TYPE: cel::common::types::Type = cel::common::types::Type::new_unspecified_type("pattern");

impl Val for Pattern {
    fn get_type(&self) -> &cel::common::types::Type {
        &PATTERN_TYPE
    }

    fn cel_type() -> &'static cel::common::types::Type {
        &PATTERN_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

impl Pattern {
    pub(super) fn new(pattern: &str) -> Result<Self, InvalidRegexp> {
        go::regexp(pattern).map(Self)
    }
}
