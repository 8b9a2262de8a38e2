//! Blocks in and out; and what becomes of bytes that were not written.

use super::*;
use crate::history::{Builder, Ends, TransferService};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

fn site(n: usize) -> Location {
    let names = ["us-east-1a", "us-east-1b", "us-east-1c", "eu-west-1a"];
    let place = match n % 6 {
        4 => Place::Internet,
        5 => Place::Unknown,
        n => Place::Zone(Arc::new(Zone { name: names[n].into(), region: names[n][..9].into() })),
    };
    Location {
        place,
        provider: (n % 6 < 4).then(|| Provider::new("aws").unwrap()),
        class: (n % 6 == 2).then_some(Class::Database),
    }
}

fn workload(n: usize) -> Workload {
    let labels = if n.is_multiple_of(3) {
        BTreeMap::from([("team".to_owned(), format!("t{}", n % 7))])
    } else {
        BTreeMap::new()
    };
    Workload { namespace: format!("ns{}", n % 5), kind: "Deployment".into(), name: format!("w{n}"), labels }
}

type Row = (usize, usize, usize, usize, u16, u64);

fn random_rows(random: &mut StdRng, count: usize) -> Vec<Row> {
    let mut row = || {
        let mut below = |limit: usize| random.random_range(0..limit);
        (below(40), below(40), below(6), below(6), [0, 443, 6379][below(3)], below(1 << 40) as u64)
    };
    (0..count).map(|_| row()).collect()
}

fn built(rows: &[Row], room: usize) -> Block {
    let mut builder = Builder::new(Span::hour_of(1_764_000_000), room);
    for (a, b, from, to, port, bytes) in rows {
        let (workloads, sites) = ([&workload(*a), &workload(*b)], [&site(*from), &site(*to)]);
        let (service, server) = if *port == 0 { ("", Server::Unknown) } else { ("ns/s", Server::Source) };
        let counter = Counter { bytes: *bytes, packets: bytes / 1000 };
        builder.add(Ends { workloads, sites }, TransferService { service, port: *port, protocol: 6, server }, counter);
        builder.add_nodes([&format!("node-{}", a % 3), ""], sites, counter);
        builder.cover(&format!("node-{}", a % 3), "aws:///us-east-1a/i-1", 10);
    }
    builder.cover("silent", "", 0);
    builder.add_recorded(3500);
    builder.block()
}

#[test]
fn a_block_comes_back_whatever_the_order_in_which_it_was_made() {
    let mut random = StdRng::seed_from_u64(1);
    for count in [0, 1, 50, 1000] {
        let mut rows = random_rows(&mut random, count);
        let block = built(&rows, 10_000);
        let bytes = block.encode();
        assert_eq!(Block::decode(&bytes).unwrap(), block);
        rows.shuffle(&mut random);
        assert_eq!(built(&rows, 10_000).encode(), bytes);
        let sum: u64 = rows.iter().map(|row| row.5).sum();
        assert_eq!(
            (
                block.total().bytes,
                block.nodes.iter().filter(|row| row.is_receiver).map(|row| row.counter.bytes).sum::<u64>()
            ),
            (sum, sum)
        );
    }
}

#[test]
fn pairs_beyond_the_room_are_others_of_their_sites_and_no_byte_is_lost() {
    let rows = random_rows(&mut StdRng::seed_from_u64(2), 2000);
    let (whole, small) = (built(&rows, 10_000), built(&rows, 20));
    assert!(small.transfers.len() <= 20 + 36 && whole.transfers.len() > 1000, "{}", small.transfers.len());
    let by_sites = |block: &Block| {
        let mut sums = BTreeMap::new();
        for Transfer { key, counter } in &block.transfers {
            let sites = key.sites.map(|site| block.sites[site as usize].clone());
            *sums.entry(sites).or_insert(Counter::default()) += *counter;
        }
        sums
    };
    assert_eq!(by_sites(&whole), by_sites(&small));
}

#[test]
fn absorbed_blocks_are_the_block_of_all_their_rows() {
    let rows = random_rows(&mut StdRng::seed_from_u64(3), 900);
    let mut builder = Builder::new(Span::hour_of(1_764_000_000), 10_000);
    rows.chunks(100).for_each(|rows| builder.absorb(&built(rows, 10_000)));
    let (sum, whole) = (builder.block(), built(&rows, 10_000));
    assert_eq!((&sum.transfers, &sum.nodes, &sum.workloads), (&whole.transfers, &whole.nodes, &whole.workloads));
    assert_eq!(sum.coverage.recorded_seconds, 3600, "an hour has no more");
}

#[test]
fn a_flip_of_any_bit_and_a_cut_at_any_place_is_refused() {
    let bytes = built(&random_rows(&mut StdRng::seed_from_u64(4), 30), 100).encode();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            assert!(Block::decode(&flipped).is_err(), "bit {bit} of byte {at}");
        }
        assert!(Block::decode(&bytes[..at]).is_err(), "{at} bytes");
    }
    assert!(Block::decode(&[bytes, vec![0]].concat()).is_err(), "a byte more");
}

#[test]
fn no_content_makes_the_decoder_panic_or_return_dangling_references() {
    let mut random = StdRng::seed_from_u64(5);
    let body = body(&built(&random_rows(&mut random, 20), 100));
    let mut read = 0;
    for _ in 0..4000 {
        let mut body = body.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..body.len());
            match random.random_range(0..4) {
                0 => body[at] = random.random(),
                1 => body[at] = 0xff,
                2 => body.truncate(at.max(1)),
                _ => body.insert(at, random.random()),
            }
        }
        if let Ok(block) = Block::decode(&pack(&body)) {
            read += 1;
            // Looks at everything that a row refers to.
            let mut builder = Builder::new(block.span, 100);
            builder.absorb(&block);
            assert_eq!(builder.block().total(), block.total());
        }
    }
    assert!(read > 20, "{read}");
}

#[test]
fn counts_without_bytes_take_no_memory() {
    for body in [vec![0xff; 9], [vec![0, 0x90, 0x1c], vec![0xff, 0xff, 0xff, 0x7f]].concat()] {
        assert!(Block::decode(&pack(&body)).is_err());
    }
    let mut bomb = pack(&vec![0; 1000]);
    let length = MAGIC.len() + SHA256_OUTPUT_LEN + 1;
    bomb[length..length + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let sum = digest(&SHA256, &bomb[MAGIC.len() + SHA256_OUTPUT_LEN..]);
    bomb[MAGIC.len()..MAGIC.len() + SHA256_OUTPUT_LEN].copy_from_slice(sum.as_ref());
    assert_eq!(Block::decode(&bomb), Err(Damaged::TooLarge(MAX_DECODED)));
}

#[test]
fn the_encoding_is_small() {
    // A thousand workloads with ten peers each, in six zone pairs, with random bytes: the worst case for columns.
    let mut random = StdRng::seed_from_u64(6);
    let mut builder = Builder::new(Span::hour_of(0), Builder::MAX_ROOM);
    for source in 0..1000 {
        for peer in 0..10 {
            for pair in 0..6 {
                let (workloads, sites) = (
                    [&workload(source), &workload((source * 7 + peer * 131) % 1000)],
                    [&site(pair % 3), &site(pair / 2)],
                );
                let size = random.random_range(10..34);
                let bytes = random.random_range(0..1 << size);
                let counter = Counter { bytes, packets: bytes / 900 + 1 };
                builder.add(
                    Ends { workloads, sites },
                    TransferService { service: "ns/s", port: 443, protocol: 6, server: Server::Source },
                    counter,
                );
            }
        }
    }
    let block = builder.block();
    let bytes = block.encode().len();
    println!("{} rows, {bytes} bytes, {:.1} a row", block.transfers.len(), bytes as f64 / block.transfers.len() as f64);
    // The archive keeps the hours of 31 days, in 512 MiB by default.
    assert!(block.transfers.len() == 60_000 && bytes * 31 * 24 < 512 << 20, "{bytes}");
}

#[test]
fn a_name_that_another_machine_takes_over_has_the_bytes_of_each() {
    let (a, b) = (site(0), site(1));
    let sent = |block: &Block| -> Vec<(String, u32, u64)> {
        let of = |at: usize| block.nodes.iter().filter(move |row| row.node as usize == at).map(|row| row.counter.bytes);
        let nodes = block.coverage.nodes.iter().enumerate();
        nodes.map(|(at, node)| (node.provider_id.clone(), node.reported_seconds, of(at).sum())).collect()
    };
    let add = |builder: &mut Builder, bytes| {
        builder.add_nodes(["n", ""], [&a, &b], Counter { bytes, packets: 1 });
    };
    let mut builder = Builder::new(Span::hour_of(0), 10);
    add(&mut builder, 1);
    builder.cover("n", "i-2", 10);
    add(&mut builder, 2);
    builder.cover("n", "i-1", 20);
    builder.cover("n", "", 0);
    add(&mut builder, 4);
    let expected =
        [("", 0, 7), ("i-1", 20, 4), ("i-2", 10, 3)].map(|(id, seconds, bytes)| (id.to_owned(), seconds, bytes));
    assert_eq!(sent(&builder.block()), expected);
    let mut day = Builder::new(Span::day_of(0), 10);
    day.absorb(&Block::decode(&builder.block().encode()).unwrap());
    assert_eq!(sent(&day.block()), expected);
}
