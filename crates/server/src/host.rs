//! What Linux tells about this process and its host: `/proc`, parsed.

use pipeline::metrics::Metrics;
use std::fs::read_to_string;

/// Sets the `process_*` and `mutt_host_*` metrics. What the system does not tell keeps its value.
pub fn show(metrics: &Metrics) {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(bytes) = kilobytes(&status, "VmRSS:") {
        metrics.process_resident_memory.set(gauge(bytes));
    }
    if let Some(bytes) = kilobytes(&status, "VmSize:") {
        metrics.process_virtual_memory.set(gauge(bytes));
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        metrics.process_open_fds.set(gauge(descriptors.count() as u64));
    }
    if let Some(max) = read_to_string("/proc/self/limits").ok().as_deref().and_then(open_files_max) {
        metrics.process_max_fds.set(gauge(max));
    }
    if let Some(ticks) = read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_ticks) {
        let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        metrics.process_cpu_seconds.inner().store(seconds.to_bits(), std::sync::atomic::Ordering::Relaxed);
    }
    if let Some(n) = read_to_string("/proc/net/snmp").ok().as_deref().and_then(udp_errors) {
        metrics.host_udp_datagrams_dropped.inner().store(n, std::sync::atomic::Ordering::Relaxed);
    }
    if let Ok(table) = read_to_string("/proc/net/softnet_stat") {
        metrics.host_packets_dropped.inner().store(backlog_drops(&table), std::sync::atomic::Ordering::Relaxed);
    }
}

fn gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kilobytes: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1_024)
}

fn open_files_max(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_ascii_whitespace().next()?.parse().ok()
}

/// User and system time; the command's name, in parentheses, may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// `InErrors` of UDP: datagrams for any socket of this network namespace that no program got. The
/// kernel's count per socket can be a little short of it (seen on Linux 6.18 under load).
fn udp_errors(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_ascii_whitespace().position(|name| name == "InErrors")?;
    values.split_ascii_whitespace().nth(at)?.parse().ok()
}

/// Second column of each processor: packets that found its backlog full, before any socket.
fn backlog_drops(table: &str) -> u64 {
    let column = |line: &str| u64::from_str_radix(line.split_ascii_whitespace().nth(1)?, 16).ok();
    table.lines().filter_map(column).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(kilobytes("Name:\tmuttd\nVmRSS:\t   28012 kB\n", "VmRSS:"), Some(28_012 * 1_024));
        assert_eq!(open_files_max("Limit  Soft  Hard\nMax open files            1024      4096  files\n"), Some(1_024));
        assert_eq!(cpu_ticks("7 (a) b (c) S 1 1 1 0 -1 4194560 900 0 0 0 31 12 0 0 20 0 9 0"), Some(43));
        let snmp =
            "Ip: A\nIp: 1\nUdp: InDatagrams NoPorts InErrors OutDatagrams\nUdp: 10 2 33 4\nUdpLite: A\nUdpLite: 9\n";
        assert_eq!(udp_errors(snmp), Some(33));
        assert_eq!(backlog_drops("01 0000000a 02\n01 00000001 02\n"), 11);
        assert_eq!(backlog_drops("nonsense\n"), 0);
    }
}
