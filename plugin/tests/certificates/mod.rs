//! Certificate authorities and certificates, as files.
#![allow(dead_code, reason = "not every test binary needs all of it")]

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The name that covers every flow server of the default cluster.
pub const SERVERS: &str = "*.default.hubble-grpc.cilium.io";

/// An authority, and the path of its certificate.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    pub file: PathBuf,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Issued {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Issued {
    /// The paths of the certificate and the key.
    pub fn files(&self) -> [&str; 2] {
        [&self.certificate, &self.key].map(|path| path.to_str().unwrap())
    }
}

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = folder.join(format!("{name}.crt"));
        fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, folder: folder.to_owned(), file }
    }

    /// A certificate for this name; `file` names its files.
    pub fn issue(&self, file: &str, name: &str) -> Issued {
        self.issue_with(file, name, |_| {})
    }

    /// A certificate that has expired.
    pub fn expired(&self, file: &str, name: &str) -> Issued {
        self.issue_with(file, name, |params| {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        })
    }

    /// A certificate that is valid until the first of January of this year.
    pub fn until(&self, file: &str, name: &str, year: i32) -> Issued {
        self.issue_with(file, name, |params| params.not_after = date_time_ymd(year, 1, 1))
    }

    fn issue_with(&self, file: &str, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let issued = Issued {
            certificate: self.folder.join(format!("{file}.crt")),
            key: self.folder.join(format!("{file}.key")),
        };
        fs::write(&issued.certificate, certificate.pem()).unwrap();
        fs::write(&issued.key, key.serialize_pem()).unwrap();
        issued
    }
}
