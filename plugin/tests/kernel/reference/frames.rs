//! Generated frames: mostly valid packets of few addresses and ports, with tags, options, fragments, extension headers
//! and packets inside packets; some are cut off, and some have changed bytes.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

/// A generator of frames.
pub struct Frames {
    random: StdRng,
    is_netfilter: bool,
}

impl Frames {
    pub fn new(seed: u64, is_netfilter: bool) -> Self {
        Self { random: StdRng::seed_from_u64(seed), is_netfilter }
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.random.random_ratio(1, n)
    }

    fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        *values.choose(&mut self.random).unwrap()
    }

    /// A frame, and whether the IPv6 program gets it.
    pub fn next(&mut self) -> (Vec<u8>, bool) {
        let is_v6 = self.random.random();
        let mut frame = vec![0; 12];
        if !self.is_netfilter {
            let tags = self.pick(&[0, 0, 0, 0, 0, 0, 1, 1, 2, 3]);
            for _ in 0..tags {
                let kind = self.pick(&[[0x81, 0x00], [0x88, 0xa8]]);
                frame.extend(kind);
                frame.extend([self.random.random::<u8>() & 0xef, self.random.random()]);
            }
        }
        let is_other = !self.is_netfilter && self.one_in(60);
        frame.extend(if is_other {
            self.pick(&[[0x08, 0x06], [0x88, 0xcc], [0x00, 0x40]])
        } else if is_v6 {
            [0x86, 0xdd]
        } else {
            [0x08, 0x00]
        });
        let start = frame.len();
        frame.extend(self.packet(is_v6, 0));
        let least = start + if is_v6 { 40 } else { 20 };
        if self.one_in(15) {
            let len = self.random.random_range(least.min(frame.len())..=frame.len());
            frame.truncate(len);
        }
        if self.one_in(8) {
            for _ in 0..self.random.random_range(1..4) {
                let at = self.random.random_range(start..frame.len().min(start + 100));
                frame[at] = self.random.random();
            }
        }
        (frame, is_v6)
    }

    fn packet(&mut self, is_v6: bool, depth: u32) -> Vec<u8> {
        let protocols: &[u8] = if depth < 2 {
            &[6, 6, 6, 6, 17, 17, 17, 17, 1, 58, 132, 47, 4, 41, 50, 51, 89, 59, 135, 0, 43, 44, 60, 255]
        } else {
            &[6, 17]
        };
        let protocol = self.pick(protocols);
        let upper = self.upper(protocol, depth);
        if is_v6 { self.v6(protocol, &upper) } else { self.v4(protocol, &upper) }
    }

    fn upper(&mut self, protocol: u8, depth: u32) -> Vec<u8> {
        let ports = [80, 443, 8080, 8472, 6081, 4789, 51_871, 33_000, 40_000, 53, 65_535, 0, 32_767, 32_768];
        let mut bytes = [self.pick::<u16>(&ports).to_be_bytes(), self.pick::<u16>(&ports).to_be_bytes()].concat();
        match protocol {
            6 => {
                let flags = self.pick(&[0x10, 0x10, 0x18, 0x02, 0x12, 0x11, 0x04, 0x00, 0x3f, 0xc2]);
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0]);
            }
            17 => {
                bytes.extend([0, 8, 0, 0]);
                if depth < 2 && self.one_in(4) {
                    // VXLAN, or Geneve without options: eight bytes; then a frame.
                    bytes.extend([8, 0, 0, 0, 0, 0, 7, 0]);
                    bytes.extend([2; 12]);
                    let is_v6 = self.random.random();
                    bytes.extend(if is_v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
                    bytes.extend(self.packet(is_v6, depth + 1));
                    return bytes;
                }
            }
            1 | 58 => bytes[0] = self.pick(&[0, 3, 8, 128, 129, 130, 133, 135, 137, 138, 143, 144]),
            4 | 41 => return self.packet(protocol == 41, depth + 1),
            _ => {}
        }
        let payload = self.pick(&[0, 0, 1, 5, 13, 40, 300, 1200]);
        bytes.resize(bytes.len() + payload, 7);
        bytes
    }

    fn v4(&mut self, protocol: u8, upper: &[u8]) -> Vec<u8> {
        let addresses = [
            [10, 0, 1, 7],
            [10, 0, 1, 9],
            [10, 0, 1, 9],
            [10, 0, 2, 7],
            [10, 0, 3, 1],
            [192, 0, 2, 1],
            [224, 0, 0, 5],
            [169, 254, 1, 1],
            [255, 255, 255, 255],
        ];
        let options = if self.one_in(5) { self.random.random_range(0..=10) } else { 0 };
        let fragment: u16 = if self.one_in(6) {
            self.pick(&[0x2000, 0x2001, 0x0001, 0x1fff, 0x4000, 0x8000, 0xe000])
        } else {
            self.pick(&[0, 0x4000])
        };
        let mut bytes = vec![0x45 + options as u8, 0];
        bytes.extend(((20 + 4 * options + upper.len()) as u16).to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([64, protocol, 0, 0]);
        bytes.extend(self.pick(&addresses[..6]));
        bytes.extend(self.pick(&addresses));
        bytes.resize(20 + 4 * options, 1);
        bytes.extend(upper);
        bytes
    }

    fn v6(&mut self, protocol: u8, upper: &[u8]) -> Vec<u8> {
        let address = |first: u16, net: u8, host: u8| {
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&first.to_be_bytes());
            (bytes[7], bytes[15]) = (net, host);
            bytes
        };
        let addresses = [
            address(0xfd00, 1, 7),
            address(0xfd00, 1, 9),
            address(0xfd00, 2, 7),
            address(0xfd00, 3, 7),
            address(0xff02, 0, 1),
            address(0xfe80, 0, 1),
            address(0xfebf, 0, 1),
            address(0xfec0, 0, 1),
        ];
        let (first, extensions) = self.extensions(protocol);
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(((extensions.len() + upper.len()) as u16).to_be_bytes());
        bytes.extend([first, 64]);
        bytes.extend(self.pick(&addresses[..4]));
        bytes.extend(self.pick(&addresses));
        bytes.extend(extensions);
        bytes.extend(upper);
        bytes
    }

    /// A chain of extension headers before `protocol`, and the number of its first.
    fn extensions(&mut self, protocol: u8) -> (u8, Vec<u8>) {
        let count = self.pick(&[0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 5, 6, 7, 8]);
        let (mut next, mut chain) = (protocol, Vec::new());
        for _ in 0..count {
            let kind = self.pick(&[0, 43, 44, 51, 60]);
            let units = self.random.random_range(0..3u8);
            let (length, len) = match kind {
                44 => (0, 8),
                51 => (units, 8 + 4 * usize::from(units)),
                _ => (units, 8 + 8 * usize::from(units)),
            };
            let mut header = vec![0; len];
            (header[0], header[1]) = (next, length);
            if kind == 44 {
                let offset = self.pick(&[[0, 0], [0, 1], [0, 6], [0, 8], [0xff, 0xf9]]);
                header[2..4].copy_from_slice(&offset);
            }
            header.extend(chain);
            (next, chain) = (kind, header);
        }
        (next, chain)
    }
}
