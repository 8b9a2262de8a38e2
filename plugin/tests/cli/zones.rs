//! Static tables made of what the clouds' own command lines print.

use crate::{Scratch, run};

const SUBNETS: &[u8] = br#"{"Subnets": [
    {"AvailabilityZone": "us-east-1a", "CidrBlock": "10.0.0.0/20", "SubnetId": "subnet-1", "VpcId": "vpc-1"},
    {"AvailabilityZone": "us-east-1b", "CidrBlock": "10.0.16.0/20", "SubnetId": "subnet-2", "VpcId": "vpc-1"}]}"#;

#[test]
fn a_table_of_subnets_gives_every_address_of_the_network_a_zone_and_a_price() {
    let scratch = Scratch::new("zones-import");
    let json = scratch.file("subnets.json", SUBNETS);
    let (json, table) = (json.to_str().unwrap(), scratch.as_ref().join("zones.yaml"));
    let table = table.to_str().unwrap();
    let output = run(&["zones", "import", "aws-subnets", json, "--output", table]);
    assert!(output.code == Some(0) && output.stdout.is_empty(), "{output:?}");
    assert_eq!(std::fs::read_to_string(table).unwrap(), run(&["zones", "import", "aws-subnets", json]).stdout);
    let found = run(&["zones", "lookup", "10.0.31.7", "--zones-file", table]);
    assert!(found.stdout.contains("10.0.16.0/20 ") && found.stdout.contains(" us-east-1b "), "{found:?}");
    let price = run(&["prices", "explain", "us-east-1a", "us-east-1b", "--zones-file", table]);
    assert!(price.stdout.contains("rule      aws-zones\n"), "{price:?}");
    let external = run(&["zones", "import", "aws-subnets", json, "--external"]);
    assert!(
        external.stdout.contains("{name: \"subnet-1\", cidr: \"10.0.0.0/20\", zone: \"us-east-1a\", class: vm}"),
        "{external:?}"
    );
}

#[test]
fn an_output_of_another_command_is_one_line() {
    let scratch = Scratch::new("zones-import-bad");
    let json = scratch.file("subnets.json", SUBNETS);
    let json = json.to_str().unwrap();
    for (args, start) in [
        (
            ["gcp-instances", json],
            format!("meridian: {json}: line 1: it is not the output of `gcloud compute instances"),
        ),
        (
            ["aws-instances", json],
            format!("meridian: {json}: line 3: it is not the output of `aws ec2 describe-instances"),
        ),
        (["aws-subnets", "/missing.json"], "meridian: /missing.json: No such file".to_owned()),
        (["aws-subnets", "/dev/zero"], "meridian: /dev/zero: it is larger than".to_owned()),
    ] {
        let output = run(&[&["zones", "import"], &args[..]].concat());
        assert!(output.code == Some(2) && output.stdout.is_empty(), "{output:?}");
        assert!(output.stderr.starts_with(&start) && output.stderr.lines().count() == 1, "{output:?}");
    }
}
