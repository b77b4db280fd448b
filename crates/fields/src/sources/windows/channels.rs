//! Channels of the Windows event log and the services they are in Sigma's words.

use super::Kind;

/// Channel, service, what its events are. Public names of Microsoft's channels and of Sigma's
/// services; a channel that is not here leaves the service unknown.
const CHANNELS: &[(&str, &[&str], Kind)] = &[
    ("Security", &["security"], Kind::Security),
    ("System", &["system"], Kind::Nothing),
    ("Application", &["application"], Kind::Application),
    ("Microsoft-Windows-Sysmon/Operational", &["sysmon"], Kind::Sysmon),
    ("Linux-Sysmon/Operational", &["sysmon"], Kind::SysmonLinux),
    ("Microsoft-Windows-PowerShell/Operational", &["powershell"], Kind::PowerShell),
    ("PowerShellCore/Operational", &["powershell"], Kind::PowerShell),
    ("Windows PowerShell", &["powershell-classic"], Kind::PowerShellClassic),
    ("Microsoft-Windows-Windows Defender/Operational", &["windefend"], Kind::Defender),
    ("RPCFW", &[], Kind::RpcFirewall),
    ("DNS Server", &["dns-server"], Kind::Unknown),
    ("Microsoft-Windows-DNS-Server/Analytical", &["dns-server-analytic"], Kind::Unknown),
    ("Microsoft-Windows-DNS-Server/Audit", &["dns-server-audit"], Kind::Unknown),
    ("Microsoft-Windows-DNSServer/Analytical", &["dns-server-analytic"], Kind::Unknown),
    ("Microsoft-Windows-DNSServer/Audit", &["dns-server-audit"], Kind::Unknown),
    ("Microsoft-Windows-DNS Client Events/Operational", &["dns-client"], Kind::Unknown),
    ("Microsoft-Windows-DNS-Client/Operational", &["dns-client"], Kind::Unknown),
    ("Microsoft-Windows-DHCP-Server/Operational", &["dhcp"], Kind::Nothing),
    ("Microsoft-Windows-DriverFrameworks-UserMode/Operational", &["driver-framework"], Kind::Nothing),
    ("Microsoft-Windows-NTLM/Operational", &["ntlm"], Kind::Nothing),
    ("Microsoft-Windows-PrintService/Admin", &["printservice-admin"], Kind::Nothing),
    ("Microsoft-Windows-PrintService/Operational", &["printservice-operational"], Kind::Nothing),
    (
        "Microsoft-Windows-TerminalServices-LocalSessionManager/Operational",
        &["terminalservices-localsessionmanager"],
        Kind::Nothing,
    ),
    ("Microsoft-Windows-CodeIntegrity/Operational", &["codeintegrity-operational"], Kind::Nothing),
    ("Microsoft-Windows-SmbClient/Security", &["smbclient-security"], Kind::Nothing),
    ("Microsoft-Windows-SmbClient/Connectivity", &["smbclient-connectivity"], Kind::Nothing),
    ("Microsoft-Windows-SMBServer/Connectivity", &["smbserver-connectivity"], Kind::Nothing),
    ("Microsoft-Windows-AppLocker/EXE and DLL", &["applocker"], Kind::Nothing),
    ("Microsoft-Windows-AppLocker/MSI and Script", &["applocker"], Kind::Nothing),
    ("Microsoft-Windows-AppLocker/Packaged app-Deployment", &["applocker"], Kind::Nothing),
    ("Microsoft-Windows-AppLocker/Packaged app-Execution", &["applocker"], Kind::Nothing),
    ("Microsoft-Windows-Bits-Client/Operational", &["bits-client"], Kind::Nothing),
    ("MSExchange Management", &["msexchange-management"], Kind::Nothing),
    ("Microsoft-ServiceBus-Client/Operational", &["microsoft-servicebus-client"], Kind::Nothing),
    ("Microsoft-ServiceBus-Client/Admin", &["microsoft-servicebus-client"], Kind::Nothing),
    ("Microsoft-Windows-LDAP-Client/Debug", &["ldap", "ldap_debug"], Kind::Nothing),
    ("Microsoft-Windows-TaskScheduler/Operational", &["taskscheduler"], Kind::Nothing),
    ("Microsoft-Windows-WMI-Activity/Operational", &["wmi"], Kind::Nothing),
    ("Microsoft-Windows-Windows Firewall With Advanced Security/Firewall", &["firewall-as"], Kind::Nothing),
    ("Microsoft-Windows-Security-Mitigations/KernelMode", &["security-mitigations"], Kind::Nothing),
    ("Microsoft-Windows-Security-Mitigations/UserMode", &["security-mitigations"], Kind::Nothing),
    ("Microsoft-Windows-Security-Mitigations/Kernel Mode", &["security-mitigations"], Kind::Nothing),
    ("Microsoft-Windows-Security-Mitigations/User Mode", &["security-mitigations"], Kind::Nothing),
    ("Microsoft-Windows-Shell-Core/Operational", &["shell-core"], Kind::Nothing),
    ("OpenSSH/Operational", &["openssh"], Kind::Nothing),
    ("Microsoft-Windows-BitLocker/BitLocker Management", &["bitlocker"], Kind::Nothing),
    ("Microsoft-Windows-VHDMP/Operational", &["vhdmp"], Kind::Nothing),
    ("Microsoft-Windows-VHDMP-Operational", &["vhdmp"], Kind::Nothing),
    ("Microsoft-Windows-AppXDeploymentServer/Operational", &["appxdeployment-server"], Kind::Nothing),
    ("Microsoft-Windows-AppxPackaging/Operational", &["appxpackaging-om"], Kind::Nothing),
    ("Microsoft-Windows-AppModel-Runtime/Admin", &["appmodel-runtime"], Kind::Nothing),
    ("Microsoft-Windows-LSA/Operational", &["lsa-server"], Kind::Nothing),
    ("Microsoft-Windows-Diagnosis-Scripted/Operational", &["diagnosis-scripted"], Kind::Nothing),
    ("Microsoft-Windows-CAPI2/Operational", &["capi2"], Kind::Nothing),
    (
        "Microsoft-Windows-CertificateServicesClient-Lifecycle-System/Operational",
        &["certificateservicesclient-lifecycle-system"],
        Kind::Nothing,
    ),
    ("Microsoft-Windows-SENSE/Operational", &["sense"], Kind::Nothing),
    ("Microsoft-Windows-Hyper-V-Worker-Admin", &["hyper-v-worker"], Kind::Nothing),
    ("Microsoft-Windows-Hyper-V-Worker/Admin", &["hyper-v-worker"], Kind::Nothing),
    ("Microsoft-IIS-Configuration/Operational", &["iis-configuration"], Kind::Nothing),
    ("Microsoft-Windows-Kernel-ShimEngine/Operational", &["kernel-shimengine"], Kind::Nothing),
    ("Microsoft-Windows-Kernel-ShimEngine/Diagnostic", &["kernel-shimengine"], Kind::Nothing),
    ("Microsoft-Windows-Kernel-EventTracing/Admin", &["kernel-event-tracing"], Kind::Nothing),
    ("Microsoft-Windows-Application-Experience/Program-Telemetry", &["application-experience"], Kind::Nothing),
    ("Microsoft-Windows-Application-Experience/Program-Inventory", &["application-experience"], Kind::Nothing),
    ("Microsoft-Windows-Ntfs/Operational", &["ntfs"], Kind::Nothing),
    ("Microsoft-Windows-WinRM/Operational", &["winrm"], Kind::Nothing),
];

/// For events that lost their channel on the way: providers that write to one only.
const PROVIDERS: &[(&str, &str)] = &[
    ("Microsoft-Windows-Sysmon", "Microsoft-Windows-Sysmon/Operational"),
    ("Linux-Sysmon", "Linux-Sysmon/Operational"),
    ("Microsoft-Windows-Security-Auditing", "Security"),
    ("Microsoft-Windows-PowerShell", "Microsoft-Windows-PowerShell/Operational"),
    ("Microsoft-Windows-Windows Defender", "Microsoft-Windows-Windows Defender/Operational"),
    ("Service Control Manager", "System"),
];

pub(super) fn by_channel(channel: &str) -> Option<(&'static [&'static str], Kind)> {
    CHANNELS
        .iter()
        .find(|(name, ..)| name.len() == channel.len() && name.eq_ignore_ascii_case(channel))
        .map(|(_, services, kind)| (*services, *kind))
}

pub(super) fn by_provider(provider: &str) -> Option<(&'static [&'static str], Kind)> {
    let (_, channel) = PROVIDERS.iter().find(|(name, _)| name.eq_ignore_ascii_case(provider))?;
    by_channel(channel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_listed_once_and_every_provider_leads_to_one() {
        for (i, (name, ..)) in CHANNELS.iter().enumerate() {
            assert!(CHANNELS[i + 1..].iter().all(|(other, ..)| !other.eq_ignore_ascii_case(name)), "{name}");
        }
        for (provider, _) in PROVIDERS {
            assert!(by_provider(provider).is_some(), "{provider}");
        }
    }
}
