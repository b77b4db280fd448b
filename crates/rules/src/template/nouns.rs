//! Words that say what the number behind them is.

/// What a number that follows would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Context {
    /// A count, an id, a measurement: it changes from one report to the next.
    #[default]
    Plain,
    /// Which one: the number belongs to the object's name.
    Identity,
    /// Which one, or how much: `CPU 3`, but `CPU: 95`.
    Gauge,
    /// A port of a protocol or a device.
    Port,
    /// A port behind the address it belongs to.
    Address,
    /// The number of something that does not last: a session, a try.
    Fleeting,
}

const NOUN_BYTES_MAX: usize = 32;

/// What a number behind this word would be; `None` for words that stand between a noun and its
/// number, as in `VLAN ID 20`.
pub(super) fn context(word: &[u8]) -> Option<Context> {
    let last = word.iter().rposition(|b| matches!(b, b'_' | b'-' | b'.' | b'/')).map_or(0, |at| at + 1);
    let word = &word[last..];
    let mut lower = [0; NOUN_BYTES_MAX];
    let Some(lower) = lower.get_mut(..word.len()) else { return Some(Context::Plain) };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    let context = match &*lower {
        b"id" | b"no" | b"nr" | b"num" | b"number" | b"index" | b"idx" => return None,
        b"port" | b"sport" | b"dport" | b"spt" | b"dpt" | b"srcport" | b"dstport" | b"lport" | b"rport"
        | b"localport" | b"remoteport" | b"sourceport" | b"destport" => Context::Port,
        b"cpu" | b"fan" | b"core" => Context::Gauge,
        b"interface" | b"if" | b"intf" | b"iface" | b"ifindex" | b"slot" | b"subslot" | b"vlan" | b"vni" | b"vrf"
        | b"psu" | b"supply" | b"module" | b"mod" | b"disk" | b"drive" | b"unit" | b"peer" | b"neighbor"
        | b"neighbour" | b"card" | b"linecard" | b"sensor" | b"group" | b"channel" | b"lag" | b"trunk" | b"tunnel"
        | b"member" | b"node" | b"switch" | b"stack" | b"chassis" | b"blade" | b"bay" | b"shelf" | b"rack"
        | b"enclosure" | b"controller" | b"volume" | b"lun" | b"array" | b"battery" | b"dimm" | b"socket" | b"lane"
        | b"link" | b"line" | b"vty" | b"tty" | b"console" | b"outlet" | b"phase" | b"fpc" | b"pic" | b"mic"
        | b"fru" | b"area" | b"as" | b"asn" | b"zone" | b"site" | b"instance" | b"queue" | b"host" | b"ap"
        | b"radio" | b"tray" | b"engine" | b"code" | b"errno" | b"eventid" | b"logid" | b"msgid" | b"rule"
        | b"policy" => Context::Identity,
        b"session" | b"sessionid" | b"attempt" | b"attempts" | b"retry" | b"retries" | b"try" | b"conn"
        | b"connection" | b"job" | b"task" | b"request" | b"req" | b"thread" | b"pid" | b"seq" | b"txn" => {
            Context::Fleeting
        }
        // `jnxFruContentsIndex 8`
        other if other.ends_with(b"index") => Context::Identity,
        _ => Context::Plain,
    };
    Some(context)
}
