//! What one more rule costs, by the kind of its question: a number of rules of one kind, less the time
//! of the same events without rules.

use crate::Plan;
use crate::detect::{Ours, Theirs};
use crate::generated::name;
use serde_json::json;

const RULES: usize = 200;
/// Nanoseconds a rule and event that two measurements differ by without reason.
const NOISE: f64 = 0.5;

/// Kind, and the detection of the rule with this number.
const KINDS: [(&str, fn(usize) -> String); 11] = [
    ("`Image: value`", |n| format!("selection: {{Image: '/usr/bin/{}'}}\n  condition: selection", name(n))),
    ("`|endswith`", |n| format!("selection: {{Image|endswith: '/{}'}}\n  condition: selection", name(n))),
    ("`|contains`", |n| format!("selection: {{CommandLine|contains: '--{}'}}\n  condition: selection", name(n))),
    ("`|contains`, four letters", |n| {
        format!("selection: {{CommandLine|contains: '{}'}}\n  condition: selection", &name(n * 31)[..4])
    }),
    ("`|contains|all`, three texts", |n| {
        let words = [name(n), name(n + 1_000), name(n + 2_000)];
        format!("selection: {{CommandLine|contains|all: ['{}']}}\n  condition: selection", words.join("', '"))
    }),
    ("`|re` with a text in it", |n| {
        format!("selection: {{CommandLine|re: '--{}=[0-9]+x'}}\n  condition: selection", name(n))
    }),
    ("`|re` without", |n| {
        format!("selection: {{CommandLine|re: '[0-9]{{3,}}[x-z]{{{}}}'}}\n  condition: selection", n % 50 + 3)
    }),
    ("`|cidr`", |n| {
        format!("selection: {{DestinationIp|cidr: '172.{}.{}.0/24'}}\n  condition: selection", n / 100, n % 100)
    }),
    ("`|gt`", |n| format!("selection: {{ProcessId|gt: {}}}\n  condition: selection", 10_000_000 + n)),
    ("`not`: common, and not one of three", |n| {
        format!(
            "selection: {{Image|startswith: '/usr/'}}\n  filter: {{User: ['root', '{}', '{}']}}\n  condition: selection and not filter",
            name(n),
            name(n + 1)
        )
    }),
    ("keyword anywhere", |n| format!("keywords: ['{}{}']\n  condition: keywords", name(n), name(n + 3))),
];

pub fn table(plan: &Plan) {
    let plan = &Plan { seconds: plan.seconds / 2.0, ..*plan };
    println!("| kind | ours, ns a rule and event | rsigma, ns a rule and event | ratio |\n|---|---|---|---|");
    let events: Vec<String> = (0..2_000).map(event).collect();
    let nobody = [rule(0, "selection: {Image: '/nobody'}\n  condition: selection")];
    for (kind, detection) in KINDS {
        let rules: Vec<String> = (0..RULES).map(|n| rule(n, &detection(n))).collect();
        let (mut ours, mut theirs) = (Ours::load(&rules), Theirs::load(&rules));
        let (mut our_base, mut their_base) = (Ours::load(&nobody), Theirs::load(&nobody));
        let mut best = [0_f64; 4];
        for _ in 0..plan.rounds {
            let rates = [
                plan.rate(&events, |text| ours.matches(text)),
                plan.rate(&events, |text| our_base.matches(text)),
                plan.rate(&events, |text| theirs.matches(text)),
                plan.rate(&events, |text| their_base.matches(text)),
            ];
            best.iter_mut().zip(rates).for_each(|(best, (rate, _))| *best = best.max(rate));
        }
        let more = |with: f64, without: f64| (1e9 / with - 1e9 / without) / RULES as f64;
        let (our_ns, their_ns) = (more(best[0], best[1]), more(best[2], best[3]));
        // A difference of two times: what is below their noise is not told, and has no ratio.
        let shown = |ns: f64| if ns < NOISE { format!("< {NOISE}") } else { format!("{ns:.1}") };
        let ratio = if our_ns.min(their_ns) < NOISE { String::new() } else { format!("{:.1}", their_ns / our_ns) };
        println!("| {} | {} | {} | {ratio} |", kind.replace('|', "\\|"), shown(our_ns), shown(their_ns));
    }
}

fn rule(number: usize, detection: &str) -> String {
    format!(
        "title: Rule {number}\nid: 00000000-0000-4000-8000-{number:012}\nlogsource: {{product: linux, category: process_creation}}\ndetection:\n  {detection}\nlevel: low\n"
    )
}

fn event(number: usize) -> String {
    let options: String = (0..12).map(|n| format!(" --option{n}={}", name(number * 13 + n + 70_000))).collect();
    json!({
        "product": "linux", "category": "process_creation", "Image": format!("/usr/bin/{}", name(number + 5_000)),
        "CommandLine": format!("/usr/bin/{}{options}", name(number + 5_000)), "User": "root", "ProcessId": number,
        "DestinationIp": format!("10.0.{}.{}", number / 250, number % 250 + 1), "CurrentDirectory": "/var/lib/app",
    })
    .to_string()
}
