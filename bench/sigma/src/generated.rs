//! Rules and events of our making.

use serde_json::json;

/// Rules as people write them: an image and some words of its command line, and an exception.
pub fn rule(number: usize) -> String {
    let (tool, word) = (name(number), name(number * 7 + 3));
    format!(
        "title: Use of {tool}\nid: 00000000-0000-4000-8000-{number:012}\nlogsource: {{product: linux, category: process_creation}}\n\
         detection:\n  selection:\n    Image|endswith: ['/{tool}', '/{tool}-ng']\n    CommandLine|contains: ['--{word}', '{word}.conf', ' /{word}/']\n\
         \x20 other:\n    CommandLine|contains|all: ['{tool}', '{word}', '.sh']\n  filter:\n    ParentImage|endswith: '/{word}d'\n\
         \x20 condition: (selection or other) and not filter\nlevel: medium\n"
    )
}

pub fn name(number: usize) -> String {
    const SYLLABLES: [&str; 16] =
        ["ka", "lo", "mi", "ne", "ru", "so", "ta", "vu", "xe", "za", "bi", "co", "du", "fe", "gi", "ho"];
    (0..4).map(|place| SYLLABLES[(number * 2_654_435_761 >> (place * 5)) % 16]).collect()
}

/// Process starts of a server: most match nothing, one in fifty does.
pub fn events() -> Vec<String> {
    let event = |number: usize| {
        let (tool, word) = if number % 50 == 0 {
            (name(number % 1_000), name((number % 1_000) * 7 + 3))
        } else {
            (name(number + 5_000), name(number + 9_000))
        };
        let padding: String = (0..12).map(|n| format!(" --option{n}={}", name(number * 13 + n))).collect();
        json!({
            "product": "linux", "category": "process_creation", "Image": format!("/usr/bin/{tool}"),
            "CommandLine": format!("/usr/bin/{tool} --{word} -f /etc/{word}.conf{padding}"),
            "ParentImage": "/usr/sbin/cron", "ParentCommandLine": "/usr/sbin/cron -f", "User": "root",
            "ProcessId": number, "ParentProcessId": 812, "CurrentDirectory": "/var/lib/app",
            "LogonId": 4_294_967_295_u32, "Hashes": format!("SHA256={:064x}", number),
        })
        .to_string()
    };
    (0..20_000).map(event).collect()
}
