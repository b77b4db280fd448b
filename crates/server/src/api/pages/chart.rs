//! The line chart of the last 24 hours, as SVG.

use super::html::Html;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 30.0;

/// `labels[i]` names the hour of `data[i]`, events a minute; oldest first.
pub fn chart(labels: &[String], data: &[f64]) -> Html {
    let mut html = Html::default();
    let steps = data.len().saturating_sub(1).max(1) as f64;
    let (top, tick) = scale(data.iter().copied().fold(0.0, f64::max));
    let x = |index: usize| LEFT + (WIDTH - LEFT - RIGHT) * index as f64 / steps;
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value / top).clamp(0.0, 1.0);
    html.raw("<svg class=\"chart\" role=\"img\" aria-labelledby=\"chart-title\"")
        .attribute("viewBox", format_args!("0 0 {WIDTH} {HEIGHT}"))
        .raw("><title id=\"chart-title\">Accepted events a minute, by hour, over the last 24 hours</title>");
    let mut value = 0.0;
    while value <= top * 1.000_1 {
        html.raw("<line class=\"grid\"").attribute("x1", LEFT).attribute("x2", WIDTH - RIGHT);
        html.attribute("y1", round(y(value))).attribute("y2", round(y(value))).raw("/>");
        html.raw("<text class=\"axis\" text-anchor=\"end\"").attribute("x", LEFT - 8.0);
        html.attribute("y", round(y(value) + 4.0)).raw(">").text(shown(value)).raw("</text>");
        value += tick;
    }
    for (index, label) in labels.iter().enumerate().filter(|(index, _)| index % 3 == 2) {
        html.raw("<text class=\"axis\" text-anchor=\"middle\"").attribute("x", round(x(index)));
        html.attribute("y", HEIGHT - 8.0).raw(">").text(label).raw("</text>");
    }
    let points: Vec<String> =
        data.iter().enumerate().map(|(index, value)| format!("{},{}", round(x(index)), round(y(*value)))).collect();
    if let (Some(first), Some(last)) = (points.first(), points.last()) {
        let ground = HEIGHT - BOTTOM;
        let from = first.split(',').next().unwrap_or_default();
        let to = last.split(',').next().unwrap_or_default();
        html.raw("<path class=\"area\"")
            .attribute("d", format_args!("M{from},{ground} L{} L{to},{ground} Z", points.join(" L")))
            .raw("/>");
    }
    html.raw("<polyline class=\"line\"").attribute("points", points.join(" ")).raw("/>");
    let column = (WIDTH - LEFT - RIGHT) / steps;
    for (index, (label, value)) in labels.iter().zip(data).enumerate() {
        html.raw("<g class=\"point\"><rect class=\"hit\"").attribute("x", round(x(index) - column / 2.0));
        html.attribute("y", TOP).attribute("width", round(column)).attribute("height", HEIGHT - TOP - BOTTOM).raw("/>");
        html.raw("<circle r=\"3.5\"").attribute("cx", round(x(index))).attribute("cy", round(y(*value))).raw("/>");
        html.raw("<title>").text(label).raw(" UTC: ").text(shown(*value)).raw(" events/min</title></g>");
    }
    html.raw("</svg>");
    html
}

/// The end of the axis and the distance of its lines: 1, 2 or 5 times a power of ten.
fn scale(most: f64) -> (f64, f64) {
    if !(most.is_finite() && most > 0.0) {
        return (1.0, 0.5);
    }
    let rough = most / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let tick = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|tick| *tick >= rough).unwrap_or(power * 10.0);
    ((most / tick).ceil() * tick, tick)
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// At most two decimals, thousands apart.
pub fn shown(value: f64) -> String {
    let cents = (value * 100.0).round() as i64;
    let (whole, part) = (cents / 100, cents % 100);
    let whole = grouped(whole.unsigned_abs());
    match part {
        0 => whole,
        part if part % 10 == 0 => format!("{whole}.{}", part / 10),
        part => format!("{whole}.{part:02}"),
    }
}

/// Thousands apart, by a narrow space that does not break.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + 4);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_holds_the_largest_value_and_has_few_lines() {
        for most in [0.01, 0.4, 1.0, 3.0, 7.2, 99.0, 100.0, 1_234.5, 9e9] {
            let (top, tick) = scale(most);
            assert!(top >= most && top / tick <= 5.001, "{most}: {top} {tick}");
        }
        assert_eq!((scale(0.0), scale(f64::NAN)), ((1.0, 0.5), (1.0, 0.5)));
    }

    #[test]
    fn numbers_are_readable() {
        for (value, expected) in [(0.0, "0"), (1.5, "1.5"), (2.25, "2.25"), (1_234_567.0, "1\u{202f}234\u{202f}567")] {
            assert_eq!(shown(value), expected);
        }
    }

    #[test]
    fn a_point_for_each_hour_with_its_title() {
        let labels: Vec<String> = (0..24).map(|hour| format!("{hour:02}:00")).collect();
        let data: Vec<f64> = (0..24).map(f64::from).collect();
        let svg = chart(&labels, &data).into_string();
        assert_eq!(svg.matches("<circle").count(), 24);
        assert!(svg.contains("<title>23:00 UTC: 23 events/min</title>"), "{svg}");
        assert!(chart(&[], &[]).into_string().ends_with("</svg>"));
    }
}
