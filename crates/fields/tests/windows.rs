//! Windows events in the forms that files hold them in.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

use fields::from_json;
use model::Fields;

fn read(text: &str) -> Fields<'_> {
    let mut fields = Fields::default();
    from_json(text, &mut fields).unwrap();
    fields
}

fn check(text: &str, expected: &[(&str, &str)], source: (&str, &[&str], &[&str])) {
    let fields = read(text);
    for (name, value) in expected {
        assert_eq!(fields.values(name).collect::<Vec<_>>(), [*value], "{name} of {fields:#?}");
    }
    let (product, categories, services) = source;
    assert_eq!(fields.source.product.as_deref(), Some(product));
    assert_eq!(fields.source.categories.as_deref().unwrap(), categories);
    assert_eq!(fields.source.services.as_deref().unwrap(), services);
}

const SYSMON: (&str, &[&str], &[&str]) = ("windows", &["process_creation"], &["sysmon"]);

#[test]
fn the_json_of_the_xml_gives_plain_names() {
    check(
        r##"{"Event":{"#attributes":{"xmlns":"x"},"System":{"Provider":{"#attributes":{"Name":"Microsoft-Windows-Sysmon",
        "Guid":"G"}},"EventID":{"#attributes":{"Qualifiers":"0"},"#text":1},"Level":4,"TimeCreated":{"#attributes":
        {"SystemTime":"2025-12-15T11:49:00Z"}},"Correlation":null,"Execution":{"#attributes":{"ProcessID":3320,"ThreadID":4}},
        "Channel":"Microsoft-Windows-Sysmon/Operational","Computer":"pc","Security":{"#attributes":{"UserID":"S-1-5-18"}}},
        "EventData":{"Image":"C:\\a.exe","ProcessId":12536,"Hashes":"MD5=AA,SHA256=BB,IMPHASH=CC","Empty":null}}}"##,
        &[
            ("EventID", "1"),
            ("Channel", "Microsoft-Windows-Sysmon/Operational"),
            ("Provider_Name", "Microsoft-Windows-Sysmon"),
            ("Computer", "pc"),
            ("ComputerName", "pc"),
            ("TimeCreated_SystemTime", "2025-12-15T11:49:00Z"),
            ("Execution_ProcessID", "3320"),
            ("Security_UserID", "S-1-5-18"),
            ("Image", r"C:\a.exe"),
            ("ProcessId", "12536"),
            ("md5", "AA"),
            ("sha256", "BB"),
            ("Imphash", "CC"),
        ],
        SYSMON,
    );
}

#[test]
fn attributes_beside_their_element_and_sorted_keys_are_the_same() {
    check(
        r#"{"Event":{"EventData":{"Image":"a"},"System":{"Channel":"Microsoft-Windows-Sysmon/Operational","EventID":1,
        "EventID_attributes":{"Qualifiers":""},"Provider_attributes":{"Name":"Microsoft-Windows-Sysmon"}}},"Event_attributes":{"xmlns":"x"}}"#,
        &[("EventID", "1"), ("Provider_Name", "Microsoft-Windows-Sysmon"), ("Image", "a")],
        SYSMON,
    );
    check(
        r#"{"System":{"Provider":{"Name":"Microsoft-Windows-Sysmon"},"EventID":{"Value":1},
        "Channel":"Microsoft-Windows-Sysmon/Operational"},"EventData":{"Image":"a"},"Message":"m"}"#,
        &[("EventID", "1"), ("Provider_Name", "Microsoft-Windows-Sysmon"), ("Image", "a"), ("Message", "m")],
        SYSMON,
    );
}

#[test]
fn collectors_names_are_kept_and_the_plain_ones_added() {
    check(
        r#"{"winlog":{"channel":"Microsoft-Windows-Sysmon/Operational","event_id":1,"provider_name":"Microsoft-Windows-Sysmon",
        "computer_name":"pc","event_data":{"Image":"a","CommandLine":"a \"b\""}},"event":{"code":"1"}}"#,
        &[
            ("EventID", "1"),
            ("Computer", "pc"),
            ("Image", "a"),
            ("CommandLine", "a \"b\""),
            ("winlog.event_data.Image", "a"),
        ],
        SYSMON,
    );
    check(
        r#"{"winlog.channel":"Microsoft-Windows-Sysmon/Operational","winlog.event_id":1,"winlog.event_data.Image":"a"}"#,
        &[("EventID", "1"), ("Image", "a")],
        SYSMON,
    );
    check(
        r#"{"data":{"win":{"system":{"channel":"Microsoft-Windows-Sysmon/Operational","eventID":"1"},"eventdata":{"commandLine":"x"}}}}"#,
        &[("EventID", "1"), ("CommandLine", "x")],
        SYSMON,
    );
    check(
        r#"{"Channel":"Microsoft-Windows-Sysmon/Operational","EventID":1,"SourceName":"Microsoft-Windows-Sysmon","Hostname":"pc","Image":"a"}"#,
        &[("Provider_Name", "Microsoft-Windows-Sysmon"), ("Computer", "pc"), ("Image", "a")],
        SYSMON,
    );
}

#[test]
fn security_events_get_the_names_of_sysmon() {
    check(
        r#"{"Event":{"System":{"EventID":4688,"Channel":"Security"},"EventData":{"SubjectUserName":"bob","SubjectDomainName":"CORP",
        "NewProcessId":"0x1f4","NewProcessName":"C:\\b.exe","ProcessId":"0x10","ParentProcessName":"C:\\p.exe","CommandLine":"b",
        "MandatoryLabel":"S-1-16-12288"}}}"#,
        &[
            ("Image", r"C:\b.exe"),
            ("ParentImage", r"C:\p.exe"),
            ("User", r"CORP\bob"),
            ("ParentProcessId", "16"),
            ("IntegrityLevel", "High"),
            ("NewProcessId", "0x1f4"),
        ],
        ("windows", &["process_creation"], &["security"]),
    );
    check(
        r#"{"Event":{"System":{"EventID":4657,"Channel":"Security"},"EventData":{"ObjectName":"\\REGISTRY\\MACHINE\\SYSTEM\\ControlSet001\\S",
        "ObjectValueName":"V","OperationType":"%%1905","NewValueType":"%%1876","NewValue":"1","ProcessName":"C:\\r.exe"}}}"#,
        &[
            ("TargetObject", r"HKLM\System\CurrentControlSet\S\V"),
            ("Details", "DWORD (0x00000001)"),
            ("EventType", "SetValue"),
            ("Image", r"C:\r.exe"),
        ],
        ("windows", &["registry_event", "registry_set"], &["security"]),
    );
    check(
        r#"{"Event":{"System":{"EventID":4624,"Channel":"Security"},"EventData":{"LogonType":3}}}"#,
        &[("LogonType", "3")],
        ("windows", &[], &["security"]),
    );
}

#[test]
fn names_with_spaces_are_given_without_them_as_well() {
    check(
        r##"{"Event":{"System":{"Provider":{"#attributes":{"Name":"Microsoft-Windows-Windows Defender"}},"EventID":1119,
        "Channel":"Microsoft-Windows-Windows Defender/Operational"},"EventData":{"Threat Name":"Tool:Win32/EICAR_Test_File",
        "Source Name":"Real-Time Protection","Process Name":"C:\\Users\\bob\\x.exe","Action Name":"Quarantine",
        "Path":"file:_C:\\a.exe","Security intelligence Version":"1"}}}"##,
        &[
            ("Threat Name", "Tool:Win32/EICAR_Test_File"),
            ("ThreatName", "Tool:Win32/EICAR_Test_File"),
            ("Signature", "Tool:Win32/EICAR_Test_File"),
            ("SourceName", "Real-Time Protection"),
            ("ProcessName", r"C:\Users\bob\x.exe"),
            ("ActionName", "Quarantine"),
            ("Path", r"file:_C:\a.exe"),
            ("SecurityintelligenceVersion", "1"),
        ],
        ("windows", &["antivirus"], &["windefend"]),
    );
}

#[test]
fn data_without_names_and_data_with_names_beside_become_fields() {
    let fields = read(
        r##"{"Event":{"System":{"EventID":400,"Channel":"Windows PowerShell"},"EventData":{"Data":{"#text":["a","b"]},"Binary":null}}}"##,
    );
    assert_eq!(fields.values("Data").collect::<Vec<_>>(), ["a", "b"]);
    assert!(fields.exists("Binary"));
    assert_eq!(fields.source.categories.as_deref().unwrap(), ["ps_classic_start"]);
    let fields = read(
        r##"{"Event":{"System":{"EventID":1,"Channel":"Security"},"EventData":{"Data":[{"@Name":"A","#text":"1"},
        {"#attributes":{"Name":"B"},"#text":"2"},{"@Name":"C"}]}}}"##,
    );
    assert_eq!(fields.first("A"), Some("1"));
    assert_eq!(fields.first("B"), Some("2"));
    assert!(fields.exists("C") && fields.first("C").is_none());
    let fields = read(
        r##"{"Event":{"System":{"EventID":21,"Channel":"X"},"UserData":{"EventXML":{"#attributes":{"xmlns":"x"},"User":"bob"}}}}"##,
    );
    assert_eq!(fields.first("User"), Some("bob"));
}

#[test]
fn what_is_not_known_for_certain_stays_unknown() {
    let fields =
        read(r#"{"Event":{"System":{"EventID":1,"Channel":"Somebody/Operational"},"EventData":{"Image":"a"}}}"#);
    assert_eq!(fields.source.product.as_deref(), Some("windows"));
    assert_eq!((fields.source.categories, fields.source.services), (None, None));
    for text in [
        r#"{"Event":{"id":1},"EventID":5}"#,
        r#"{"EventData":{"a":1}}"#,
        r#"{"event_id":1,"log_name":"x"}"#,
        r#"{"Image":"C:\\a.exe"}"#,
        "{}",
    ] {
        assert_eq!(read(text).source, model::EventSource::default(), "{text}");
    }
    assert_eq!(read(r#"{"EventData":{"a":1}}"#).first("EventData.a"), Some("1"));
    assert_eq!(read(r#"{"Event":{"id":1}}"#).first("Event.id"), Some("1"));
}
