//! What ClickHouse says in its own way.

use super::arithmetic;
use crate::sigma::correlation::Bound;
use crate::sql::clickhouse::{NUMBER, literal, values_of};

/// The first value of a field, or NULL.
pub(super) fn first(name: &str) -> String {
    let values = values_of(name);
    format!("if(notEmpty({values}), {values}[1], NULL)")
}

/// The members `m` of a correlation at anchors where it holds.
pub(super) fn held(prefix: &str, groups: &[String]) -> String {
    let same: String = groups.iter().map(|group| format!(" AND j.{group} = m.{group}")).collect();
    format!("\nFROM {prefix}_members AS m\nJOIN {prefix}_judged AS j ON j.ts = m.ts{same}\nWHERE j.holds")
}

pub(super) fn is_number(value: &str) -> String {
    format!("match({value}, {}) AND abs(toFloat64OrZero({value})) <= 1e15", literal(NUMBER))
}

/// A number in millionths. Halves go away from zero, where `round` takes them to the even number.
pub(super) fn millionths(value: &str) -> String {
    let number = format!("assumeNotNull(toFloat64OrZero({value}))");
    let rest = format!("({number} - trunc({number})) * 1e6");
    format!(
        "toInt128(trunc({number})) * 1000000 + toInt128(trunc({rest}) \
         + if(abs({rest} - trunc({rest})) >= 0.5, sign({rest}), 0))"
    )
}

/// The percentile of a window's numbers meets the bounds; everything in hundredths of millionths.
pub(super) fn percentile(list: &str, percentile: u8, bounds: &[Bound]) -> String {
    let rank = format!("({percentile} * (length({list}) - 1))");
    let low = format!("{list}[intDiv({rank}, 100) + 1]");
    let high = format!("{list}[least(intDiv({rank}, 100) + 2, length({list}))]");
    let value = format!("({low} * 100 + ({rank} % 100) * ({high} - {low}))");
    let tests: Vec<String> = bounds
        .iter()
        .map(|bound| {
            let limit = arithmetic::millionths(bound.value) * 100;
            format!("{value} {} toInt128('{limit}')", bound.op.sign())
        })
        .collect();
    tests.join(" AND ")
}

/// The most inputs of a window's list that can be picked in order.
pub(super) fn in_order(list: &str) -> String {
    format!(
        "length(arrayFold((ends, input) -> if(arrayFirstIndex(e -> e >= input, ends) = 0, arrayPushBack(ends, input), \
         arrayMap((e, at) -> if(at = arrayFirstIndex(e -> e >= input, ends), input, e), ends, arrayEnumerate(ends))), \
         {list}, emptyArrayUInt8()))"
    )
}

/// Those inputs of a window's list that have a bit here.
pub(super) fn only(list: &str, inputs: u64) -> String {
    let inputs: Vec<String> = (0..64).filter(|input| inputs >> input & 1 == 1).map(|input| input.to_string()).collect();
    if inputs.is_empty() {
        return "emptyArrayUInt8()".to_owned();
    }
    format!("arrayFilter(input -> has([{}], input), {list})", inputs.join(", "))
}
