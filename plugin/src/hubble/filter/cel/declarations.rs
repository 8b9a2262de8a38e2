//! The functions of CEL and their types.

use super::types::Type;
use ahash::AHashMap;
use std::sync::LazyLock;

/// An overload of a function.
#[derive(Debug)]
pub(super) struct Declaration {
    /// Whether it is called as a member of its first argument.
    pub(super) is_member: bool,
    pub(super) arguments: Vec<Type>,
    pub(super) result: Type,
}

/// The overloads of this name; empty if there is no such function.
pub(super) fn named(name: &str) -> &'static [Declaration] {
    DECLARATIONS.get(name).map_or(&[], Vec::as_slice)
}

static DECLARATIONS: LazyLock<AHashMap<&'static str, Vec<Declaration>>> = LazyLock::new(|| {
    let mut declarations: AHashMap<_, Vec<_>> = AHashMap::new();
    for line in TEXT.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let (names, mut rest) = (words.next().unwrap_or_default(), words.collect::<Vec<_>>());
        let result = rest.pop().map_or(Type::Dyn, type_of);
        let is_member = rest.first() == Some(&"of");
        let arguments: Vec<Type> = rest.iter().filter(|word| **word != "of").map(|word| type_of(word)).collect();
        for name in names.split(',') {
            let declaration = Declaration { is_member, arguments: arguments.clone(), result: result.clone() };
            declarations.entry(name).or_default().push(declaration);
        }
    }
    declarations
});

fn type_of(word: &str) -> Type {
    match word {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Meta,
        "[A]" => Type::list(Type::Parameter('A')),
        "{A:B}" => Type::Map(Box::new(Type::Parameter('A')), Box::new(Type::Parameter('B'))),
        "A" => Type::Parameter('A'),
        "B" => Type::Parameter('B'),
        _ => Type::Dyn,
    }
}

/// Names, argument types and result types; `of` marks the type of the receiver.
const TEXT: &str = "
    _?_:_ bool A A A
    _&&_,_||_ bool bool bool
    !_,@not_strictly_false,__not_strictly_false__ bool bool
    _==_,_!=_ A A bool
    _+_ bytes bytes bytes
    _+_ double double double
    _+_ duration duration duration
    _+_ duration timestamp timestamp
    _+_ timestamp duration timestamp
    _+_ int int int
    _+_ [A] [A] [A]
    _+_ string string string
    _+_ uint uint uint
    _/_,_*_ double double double
    _/_,_*_,_%_ int int int
    _/_,_*_,_%_ uint uint uint
    -_ double double
    -_ int int
    _-_ double double double
    _-_ duration duration duration
    _-_ int int int
    _-_ timestamp duration timestamp
    _-_ timestamp timestamp duration
    _-_ uint uint uint
    _<_,_<=_,_>_,_>=_ bool bool bool
    _<_,_<=_,_>_,_>=_ int int bool
    _<_,_<=_,_>_,_>=_ uint uint bool
    _<_,_<=_,_>_,_>=_ double double bool
    _<_,_<=_,_>_,_>=_ string string bool
    _<_,_<=_,_>_,_>=_ bytes bytes bool
    _<_,_<=_,_>_,_>=_ timestamp timestamp bool
    _<_,_<=_,_>_,_>=_ duration duration bool
    _[_] [A] int A
    _[_] {A:B} A B
    @in,_in_,in A [A] bool
    @in,_in_,in A {A:B} bool
    size bytes int
    size of bytes int
    size [A] int
    size of [A] int
    size {A:B} int
    size of {A:B} int
    size string int
    size of string int
    type A type
    dyn A dyn
    bool bool bool
    bool string bool
    bytes bytes bytes
    bytes string bytes
    double double double
    double int double
    double string double
    double uint double
    duration duration duration
    duration int duration
    duration string duration
    int int int
    int double int
    int duration int
    int string int
    int timestamp int
    int uint int
    string string string
    string bool string
    string bytes string
    string double string
    string duration string
    string int string
    string timestamp string
    string uint string
    timestamp timestamp timestamp
    timestamp int timestamp
    timestamp string timestamp
    uint uint uint
    uint double uint
    uint int uint
    uint string uint
    contains,endsWith,startsWith of string string bool
    matches string string bool
    matches of string string bool
    getFullYear,getMonth,getDayOfYear,getDayOfMonth,getDate,getDayOfWeek of timestamp int
    getFullYear,getMonth,getDayOfYear,getDayOfMonth,getDate,getDayOfWeek of timestamp string int
    getHours,getMinutes,getSeconds,getMilliseconds of timestamp int
    getHours,getMinutes,getSeconds,getMilliseconds of timestamp string int
    getHours,getMinutes,getSeconds,getMilliseconds of duration int
";
