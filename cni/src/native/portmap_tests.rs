use super::*;

fn parsed(extra: &str, mappings: &str) -> Option<Conf> {
    let text = format!(
        r#"{{"type": "portmap", "name": "net", "cniVersion": "1.0.0", "capabilities": {{"portMappings": true}},
            {extra} "runtimeConfig": {{"portMappings": {mappings}}}}}"#
    );
    parse(&serde_json::from_str(&text).unwrap(), Engines::default())
}

/// What is written for a pod, but for what is shared.
fn lines(extra: &str, mappings: &str, pod: &str) -> Vec<String> {
    let conf = parsed(extra, mappings).unwrap();
    let line = |step| match step {
        Step::Chain(name) | Step::Own(name) => format!("-N {name}"),
        Step::First(chain, rule) => format!("-I {chain} {rule}"),
        Step::Last(chain, rule) => format!("-A {chain} {rule}"),
    };
    let all = steps(&conf, "net", "abc", pod.parse().unwrap()).into_iter().map(line);
    let all = all.filter(|line| line.contains("CNI-DN-") && !line.starts_with("-N"));
    all.map(|line| line.replace("CNI-DN-3ce8a0924fdef86d56ad1", "OWN")).collect()
}

const COMMENT: &str = r#"-m comment --comment "dnat name: \"net\" id: \"abc\"""#;

#[test]
fn what_is_shared_is_made_first() {
    let mappings = r#"[{"hostPort": 1, "containerPort": 2, "protocol": "tcp"}]"#;
    let conf = parsed(r#""markMasqBit": 31,"#, mappings).unwrap();
    let steps = steps(&conf, "net", "abc", "10.77.0.2/24".parse().unwrap());
    let rule = |at: usize| match &steps[at] {
        Step::Chain(name) | Step::Own(name) => name.clone(),
        Step::First(chain, rule) => format!("first in {chain}: {rule}"),
        Step::Last(chain, rule) => format!("{chain}: {rule}"),
    };
    let expected = [
        "CNI-HOSTPORT-SETMARK",
        "CNI-HOSTPORT-SETMARK: -m comment --comment \"CNI portfwd masquerade mark\" -j MARK --set-xmark 0x80000000/0x80000000",
        "CNI-HOSTPORT-MASQ",
        "CNI-HOSTPORT-MASQ: -m mark --mark 0x80000000/0x80000000 -j MASQUERADE",
        "first in POSTROUTING: -m comment --comment \"CNI portfwd requiring masquerade\" -j CNI-HOSTPORT-MASQ",
        "CNI-HOSTPORT-DNAT",
        "PREROUTING: -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
        "OUTPUT: -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
        "CNI-DN-3ce8a0924fdef86d56ad1",
    ];
    let found: Vec<_> = (0..expected.len()).map(rule).collect();
    assert_eq!(found, expected);
}

#[test]
fn mappings_become_rules() {
    let tcp = r#"[{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]"#;
    let v4 = [
        "-A OWN -s 10.77.0.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK",
        "-A OWN -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK",
        "-A OWN -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.77.0.2:80",
    ];
    let entry = format!("-A CNI-HOSTPORT-DNAT -p tcp {COMMENT} -m multiport --dports 8080 -j OWN");
    let all: Vec<_> = v4.map(str::to_owned).into_iter().chain([entry.clone()]).collect();
    assert_eq!(lines("", tcp, "10.77.0.2/24"), all);
    let v6 = [
        "-A OWN -s fd00::/64 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK".to_owned(),
        "-A OWN -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00::2]:80".to_owned(),
        entry,
    ];
    assert_eq!(lines("", tcp, "fd00::2/64"), v6);
    let plain = lines(r#""snat": false,"#, tcp, "10.77.0.2/24");
    assert_eq!(plain, [v4[2].to_owned(), v6[2].clone()]);
    let marked = lines(r#""externalSetMarkChain": "KUBE-MARK-MASQ","#, tcp, "10.77.0.2/24");
    assert_eq!(marked[0], v4[0].replace("CNI-HOSTPORT-SETMARK", "KUBE-MARK-MASQ"));
    let given = lines(r#""conditionsV4": ["!", "-s", "10.0.0.0/8"],"#, tcp, "10.77.0.2/24");
    assert!(given[3].ends_with("--dports 8080 ! -s 10.0.0.0/8 -j OWN"), "{}", given[3]);
}

#[test]
fn a_host_address_is_of_one_family() {
    let mapping = |ip: &str| {
        format!(
            r#"[{{"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "{ip}"}}]"#
        )
    };
    let some = lines(r#""snat": false,"#, &mapping("10.1.2.3"), "10.77.0.2/24");
    assert_eq!(
        some[0],
        "-A OWN -d 10.1.2.3/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.77.0.2:5353"
    );
    let any = lines(r#""snat": false,"#, &mapping("0.0.0.0"), "10.77.0.2/24");
    assert_eq!(any[0], "-A OWN -p udp -m udp --dport 53 -j DNAT --to-destination 10.77.0.2:5353");
    // The plugin leads there all the same.
    for ip in ["10.1.2.3", "0.0.0.0"] {
        let other = lines("", &mapping(ip), "fd00::2/64");
        assert!(other.len() == 1 && other[0].contains("--dports 53 -j OWN"), "{other:?}");
    }
    let v6 = lines(r#""snat": false,"#, &mapping("fd01::9"), "fd00::2/64");
    assert!(v6[0].starts_with("-A OWN -d fd01::9/128 -p udp"), "{}", v6[0]);
}

#[test]
fn many_ports_share_rules() {
    let one = |i: u16| {
        let protocol = if i.is_multiple_of(2) { "tcp" } else { "sctp" };
        format!(r#"{{"hostPort": {}, "containerPort": 1, "protocol": "{protocol}"}}"#, 1000 + i)
    };
    let all: Vec<_> = (0..40).map(one).collect();
    let lines = lines("", &format!("[{}]", all.join(",")), "fd00::2/64");
    let entries: Vec<_> = lines.iter().filter(|line| line.contains("multiport")).collect();
    let ports = |line: &str| line.matches(',').count() + 1;
    assert_eq!(entries.iter().map(|line| ports(line)).collect::<Vec<_>>(), [15, 5, 15, 5]);
    assert!(entries[0].contains("-p sctp") && entries[2].contains("-p tcp"));
}

#[test]
fn what_could_mean_something_else_is_left_to_the_executable() {
    let tcp = r#"[{"hostPort": 1, "containerPort": 1, "protocol": "tcp"}]"#;
    assert!(parsed("", tcp).is_some() && parsed(r#""backend": "iptables","#, tcp).is_some());
    for extra in [
        r#""masqAll": true,"#,
        r#""backend": "nftables","#,
        r#""markMasqBit": 32,"#,
        r#""markMasqBit": -1,"#,
        r#""markMasqBit": 1, "externalSetMarkChain": "A","#,
        r#""externalSetMarkChain": "A -j DROP","#,
        r#""externalSetMarkChain": "ACCEPT","#,
        r#""snat": null,"#,
        r#""SNAT": false,"#,
        r#""conditionsV4": ["ip saddr 10.0.0.0/8"],"#,
        r#""conditionsV4": ["-s", "10.0.0.0/8\nCOMMIT"],"#,
        r#""conditionsV6": ["-t", "filter"],"#,
        r#""conditionsV6": ["-s", ""],"#,
    ] {
        assert!(parsed(extra, tcp).is_none(), "{extra}");
    }
    for mapping in [
        r#"[{"hostPort": 0, "containerPort": 1, "protocol": "tcp"}]"#,
        r#"[{"hostPort": 1, "containerPort": 65536, "protocol": "tcp"}]"#,
        r#"[{"hostPort": 1, "containerPort": 1, "protocol": "TCP"}]"#,
        r#"[{"hostPort": 1, "containerPort": 1, "protocol": "tcp", "hostIP": "1.2.3.4 -j DROP"}]"#,
        r#"[{"hostPort": 1, "containerPort": 1, "protocol": "tcp", "hostIP": "::ffff:1.2.3.4"}]"#,
        r#"[{"HostPort": 1, "ContainerPort": 1, "Protocol": "tcp"}]"#,
        "null",
    ] {
        assert!(parsed("", mapping).is_none(), "{mapping}");
    }
}
