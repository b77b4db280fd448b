//! Load of the machine: CPU, memory, disks, network, every half minute, read from the kernel's own files.
//!
//! Each number is a metric event. What is over its threshold is an event of the stream `system` besides, in the words
//! that rules know; again only after it was below, or after a quarter of an hour.

use super::{Context, log_event, log_record};
use crate::spool::Observation;
use model::Timestamp;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use wire::{MetricEvent, Record, record};

const EVERY: Duration = Duration::from_secs(30);
/// How often the stop is looked for.
const STOP_EVERY: Duration = Duration::from_millis(500);
/// Network interfaces that are counted.
const INTERFACES_MAX: usize = 1_024;
/// Rounds after which something that is still over its threshold is said again.
const AGAIN_AFTER: u32 = 30;
/// Filesystems looked at.
const MOUNTS_MAX: usize = 32;

/// Ready to run, or why not.
pub fn can_run() -> Result<(), String> {
    std::fs::read_to_string("/proc/stat").map(drop).map_err(|error| format!("/proc/stat cannot be read: {error}"))
}

/// Until the stop, on a thread of its own: a disk that does not answer keeps nobody else waiting.
pub fn run(context: &Context) {
    tracing::info!("Starting system metrics collection");
    let mut meter = Meter::default();
    // Rates need two looks.
    meter.measure(&Look::now());
    let mut looked = Instant::now();
    while !context.stop.is_requested() {
        std::thread::sleep(STOP_EVERY);
        if looked.elapsed() < EVERY {
            continue;
        }
        looked = Instant::now();
        let values = meter.measure(&Look::now());
        let now = context.clock.now();
        let mut observations: Vec<Observation> = values.iter().map(|value| value.observation(now)).collect();
        observations.extend(meter.judge(&values).into_iter().map(|(message, labels)| {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
            let record = Some(log_record(log_event(now, "system", message, &labels)));
            Observation { source: "metrics".into(), bookmark: None, record }
        }));
        if !context.sink.put_blocking(observations) {
            return;
        }
    }
}

/// What the kernel says at one moment.
#[derive(Debug, Clone, Default)]
pub struct Look {
    pub stat: String,
    pub meminfo: String,
    pub loadavg: String,
    pub net: String,
    /// Mount point → used and usable blocks.
    pub disks: BTreeMap<String, (u64, u64)>,
    /// Seconds from any beginning.
    pub uptime: String,
}

impl Look {
    fn now() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let mut disks = BTreeMap::new();
        for mount in mounts(&read("/proc/self/mounts")) {
            if let Ok(stat) = rustix::fs::statvfs(mount.as_str()) {
                let used = stat.f_blocks.saturating_sub(stat.f_bfree);
                // As `df` counts: what is kept for root is neither used nor free.
                disks.insert(mount, (used, used.saturating_add(stat.f_bavail)));
            }
        }
        Self {
            stat: read("/proc/stat"),
            meminfo: read("/proc/meminfo"),
            loadavg: read("/proc/loadavg"),
            net: read("/proc/net/dev"),
            uptime: read("/proc/uptime"),
            disks,
        }
    }
}

/// Mount points of filesystems on devices of this machine, each device once. One over a network could keep us waiting.
fn mounts(text: &str) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let (Some(device), Some(mount), Some(kind)) = (words.next(), words.next(), words.next()) else { continue };
        let is_disk =
            kind == "zfs" || (device.starts_with("/dev/") && !matches!(kind, "squashfs" | "iso9660" | "udf" | "erofs"));
        if (is_disk || mount == "/") && found.len() < MOUNTS_MAX && seen.insert(device) {
            found.push(mount.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"));
        }
    }
    found
}

/// A number.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    pub mount: Option<String>,
}

impl Value {
    fn observation(&self, now: Timestamp) -> Observation {
        let mut labels = BTreeMap::from([("metric_type".to_owned(), self.name.to_owned())]);
        labels.extend(self.mount.iter().map(|mount| ("mount".to_owned(), mount.clone())));
        let metric = MetricEvent {
            ts_unix_ns: now.micros().saturating_mul(1_000),
            stream: "metrics".to_owned(),
            name: self.name.to_owned(),
            value: self.value,
            unit: self.unit.to_owned(),
            labels,
            ..MetricEvent::default()
        };
        let record = Some(Record { body: Some(record::Body::Metric(metric)) });
        Observation { source: "metrics".into(), bookmark: None, record }
    }
}

type Said = (String, Vec<(&'static str, String)>);

/// Remembers the look before, and what was said.
#[derive(Debug, Default)]
pub struct Meter {
    /// Busy and all ticks.
    cpu: Option<(u64, u64)>,
    /// Seconds, and what each interface had counted by then.
    net: Option<(f64, BTreeMap<String, Bytes>)>,
    /// What is over its threshold, and for how many rounds.
    over: BTreeMap<String, u32>,
}

impl Meter {
    /// The numbers of a look. Those that need the one before are missing from the first.
    pub fn measure(&mut self, look: &Look) -> Vec<Value> {
        let mut values = Vec::new();
        let mut add = |name, value: f64, unit, mount: Option<String>| {
            if value.is_finite() {
                values.push(Value { name, value: (value * 100.0).round() / 100.0, unit, mount });
            }
        };
        if let Some((busy, all)) = cpu_ticks(&look.stat)
            && let Some((busy_before, all_before)) = self.cpu.replace((busy, all)).filter(|before| before.1 < all)
        {
            let share = busy.saturating_sub(busy_before) as f64 / (all - all_before) as f64;
            add("cpu_usage", share.min(1.0) * 100.0, "percent", None);
        }
        if let Some(used) = memory_used(&look.meminfo) {
            add("memory_usage", used, "percent", None);
        }
        for (mount, (used, usable)) in &look.disks {
            if *usable > 0 {
                add("disk_usage", *used as f64 / *usable as f64 * 100.0, "percent", Some(mount.clone()));
            }
        }
        if let Some(load) = look.loadavg.split(' ').next().and_then(|word| word.parse().ok()) {
            add("load_1", load, "", None);
        }
        let seconds = look.uptime.split(' ').next().and_then(|word| word.parse::<f64>().ok());
        let counted = net_bytes(&look.net);
        if let Some(seconds) = seconds
            && let Some((before, counted_before)) = self.net.replace((seconds, counted.clone()))
        {
            let more = |of: fn(&Bytes) -> u64| -> u64 {
                let grown = counted.iter().filter_map(|(name, now)| Some((of(now), of(counted_before.get(name)?))));
                // A counter that went back began anew, or ran over: what it has now is what is known.
                grown.map(|(now, before)| now.checked_sub(before).unwrap_or(now)).fold(0, u64::saturating_add)
            };
            let over = seconds - before;
            add("network_in", more(|bytes| bytes.received) as f64 / over, "bytes/s", None);
            add("network_out", more(|bytes| bytes.sent) as f64 / over, "bytes/s", None);
        }
        values
    }

    /// What is to be said about them.
    pub fn judge(&mut self, values: &[Value]) -> Vec<Said> {
        let mut said = Vec::new();
        for value in values {
            let (words, event_type, threshold, severity) = match value.name {
                "cpu_usage" => ("High CPU usage", "high_cpu", 90.0, "warning"),
                "memory_usage" => ("High memory usage", "high_memory", 90.0, "warning"),
                "disk_usage" => ("High disk usage", "high_disk", 85.0, "critical"),
                _ => continue,
            };
            let key = format!("{}{}", value.name, value.mount.as_deref().unwrap_or_default());
            if value.value <= threshold {
                self.over.remove(&key);
                continue;
            }
            let rounds = self.over.entry(key).or_default();
            if rounds.is_multiple_of(AGAIN_AFTER) {
                let number = format!("{:.1}", value.value);
                let mut labels = vec![("event_type", event_type.to_owned()), (value.name, number.clone())];
                labels.push(("severity", severity.to_owned()));
                labels.extend(value.mount.iter().map(|mount| ("mount", mount.clone())));
                said.push((format!("{words}: {number}%"), labels));
            }
            *rounds += 1;
        }
        said
    }
}

/// Busy and all ticks since the start.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // The last two of ten are counted in the first two already.
    let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).map_while(|word| word.parse().ok()).collect();
    let idle = ticks.get(3)?.saturating_add(ticks.get(4).copied().unwrap_or(0));
    let all = ticks.iter().fold(0u64, |sum, ticks| sum.saturating_add(*ticks));
    Some((all.saturating_sub(idle), all))
}

/// Percent of memory that is not available.
fn memory_used(meminfo: &str) -> Option<f64> {
    let kb = |name: &str| -> Option<u64> {
        let rest = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.split_ascii_whitespace().next()?.parse().ok()
    };
    let total = kb("MemTotal").filter(|total| *total > 0)?;
    Some(total.saturating_sub(kb("MemAvailable")?) as f64 / total as f64 * 100.0)
}

/// What an interface has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bytes {
    received: u64,
    sent: u64,
}

/// Of all interfaces but the loopback.
fn net_bytes(text: &str) -> BTreeMap<String, Bytes> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> = numbers.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
        if let (false, Some(received), Some(sent)) = (name.trim() == "lo", numbers.first(), numbers.get(8))
            && found.len() < INTERFACES_MAX
        {
            found.insert(name.trim().to_owned(), Bytes { received: *received, sent: *sent });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(busy: u64, idle: u64, available: u64, received: u64, seconds: u64, disk: u64) -> Look {
        Look {
            stat: format!("cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 1 1 1\nctxt 5\n"),
            meminfo: format!("MemTotal:        1000 kB\nMemFree:  1 kB\nMemAvailable:    {available} kB\n"),
            loadavg: "0.52 0.58 0.59 1/467 12345\n".to_owned(),
            net: format!(
                "Inter-|   Receive  |  Transmit\n face |bytes |bytes\n    lo: 99 0 0 0 0 0 0 0 99 0 0 0 0 0 0 0\n  \
                 eth0: {received} 9 0 0 0 0 0 0 40 7 0 0 0 0 0 0\n"
            ),
            disks: BTreeMap::from([("/".to_owned(), (disk, 100)), ("/empty".to_owned(), (0, 0))]),
            uptime: format!("{seconds}.00 1.0\n"),
        }
    }

    #[test]
    fn numbers_are_what_the_kernel_says() {
        let mut meter = Meter::default();
        let first: Vec<&str> = meter.measure(&look(0, 0, 250, 0, 10, 50)).iter().map(|v| v.name).collect();
        assert_eq!(first, ["memory_usage", "disk_usage", "load_1"], "rates need two looks");
        let values = meter.measure(&look(75, 25, 250, 3_000, 40, 50));
        let shown: Vec<(&str, f64)> = values.iter().map(|v| (v.name, v.value)).collect();
        let expected = [
            ("cpu_usage", 75.0),
            ("memory_usage", 75.0),
            ("disk_usage", 50.0),
            ("load_1", 0.52),
            ("network_in", 100.0),
            ("network_out", 0.0),
        ];
        assert_eq!(shown, expected);
        assert!(meter.measure(&Look::default()).is_empty(), "nothing can be read");
        let back = meter.measure(&look(0, 0, 5_000, 0, 40, 50));
        assert!(back.iter().all(|v| v.value >= 0.0 && v.value.is_finite()), "counters went back, no time passed");
    }

    #[test]
    fn each_interface_is_counted_by_itself_whatever_comes_goes_or_runs_over() {
        let net = |lines: &str, seconds: u64| Look { net: lines.to_owned(), ..look(0, 0, 1, 0, seconds, 1) };
        let mut meter = Meter::default();
        let mut rates = |lines: &str, seconds| -> Vec<f64> {
            let values = meter.measure(&net(lines, seconds));
            values.iter().filter(|v| v.name.starts_with("network")).map(|v| v.value).collect()
        };
        rates("eth0: 1000 0 0 0 0 0 0 0 5\n veth1: 900000 0 0 0 0 0 0 0 0\n", 0);
        assert_eq!(rates("eth0: 1500 0 0 0 0 0 0 0 5\n", 10), [50.0, 0.0], "one went with all that it had counted");
        assert_eq!(rates("eth0: 1600 0 0 0 0 0 0 0 5\n veth2: 77 0 0 0 0 0 0 0 0\n", 20), [10.0, 0.0], "one came");
        assert_eq!(rates("eth0: 4294967290 0 0 0 0 0 0 0 5\n", 30).len(), 2);
        assert_eq!(rates("eth0: 200 0 0 0 0 0 0 0 15\n", 40), [20.0, 1.0], "one ran over");
        let many: String = (0..5_000).map(|i| format!("e{i}: {} 0 0 0 0 0 0 0 0\n", u64::MAX)).collect();
        rates(&many, 50);
        assert_eq!(net_bytes(&many).len(), INTERFACES_MAX);
    }

    #[test]
    fn what_is_over_its_threshold_is_said_in_the_words_of_rules_and_not_every_time() {
        let mut meter = Meter::default();
        meter.measure(&look(0, 0, 50, 0, 0, 86));
        let values = meter.measure(&look(95, 5, 50, 0, 30, 86));
        let said = meter.judge(&values);
        let words: Vec<&str> = said.iter().map(|(message, _)| message.as_str()).collect();
        assert_eq!(words, ["High CPU usage: 95.0%", "High memory usage: 95.0%", "High disk usage: 86.0%"]);
        let labels = [("event_type", "high_disk"), ("disk_usage", "86.0"), ("severity", "critical"), ("mount", "/")];
        assert_eq!(said[2].1, labels.map(|(k, v)| (k, v.to_owned())));
        assert!(meter.judge(&values).is_empty());
        let again = (2..=AGAIN_AFTER).map(|_| meter.judge(&values).len()).sum::<usize>();
        assert_eq!(again, 3, "after a quarter of an hour");
        let fine = [Value { name: "cpu_usage", value: 90.0, unit: "percent", mount: None }];
        assert!(meter.judge(&fine).is_empty());
        assert_eq!(meter.judge(&values).len(), 1, "it was below");
    }

    #[test]
    fn disks_of_this_machine_are_looked_at_once() {
        let text = "proc /proc proc rw 0 0\n/dev/vda1 / ext4 rw 0 0\n/dev/vda1 /bind ext4 rw 0 0\n\
                    server:/x /net nfs rw 0 0\ntank/home /home zfs rw 0 0\n/dev/sdb1 /my\\040disk xfs rw 0 0\n/dev/loop1 /snap squashfs ro 0 0\n";
        assert_eq!(mounts(text), ["/", "/home", "/my disk"]);
        let many: String = (0..5_000).map(|i| format!("/dev/d{i} /m{i} ext4 rw 0 0\n")).collect();
        assert_eq!(mounts(&many).len(), MOUNTS_MAX);
        assert_eq!(mounts("overlay / overlay rw 0 0\n"), ["/"]);
    }

    #[test]
    fn this_machine_can_be_measured() {
        can_run().unwrap();
        let mut meter = Meter::default();
        let names: Vec<&str> = meter.measure(&Look::now()).iter().map(|v| v.name).collect();
        assert!(names.contains(&"memory_usage") && names.contains(&"disk_usage"), "{names:?}");
    }
}
