//! Values of settings.

use super::invalid::Invalid;
use crate::{
    cluster::NodeLabel,
    export::Output,
    link,
    metrics::{InvalidListen, Listen},
};
use jiff::SignedDuration;
use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

/// The value that turns a setting off.
pub(super) const OFF: &str = "off";

/// Where the pair log goes; `None` is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PairLogOutput(pub(super) Option<Output>);

impl FromStr for PairLogOutput {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text {
            "" => return Err(Invalid::NoOutput),
            OFF => None,
            "stdout" | "-" => Some(Output::Stdout),
            path => Some(Output::File(path.into())),
        }))
    }
}

/// An address to listen on, or `off` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListenOrOff(pub(super) Option<SocketAddr>);

impl FromStr for ListenOrOff {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == OFF { Ok(Self(None)) } else { text.parse().map(|Listen(at)| Self(Some(at))) }
    }
}

/// A time of at least a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seconds(pub(super) Duration);

impl FromStr for Seconds {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time: SignedDuration = text.parse().map_err(|_| Invalid::Time(text.to_owned()))?;
        let time = Duration::try_from(time).ok().filter(|time| *time >= Duration::from_secs(1));
        time.map(Self).ok_or_else(|| Invalid::ShortTime(text.to_owned()))
    }
}

/// The controller, as HOST:PORT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server(pub(super) String);

impl FromStr for Server {
    type Err = link::SettingsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        link::host(text).map(|_| Self(text.to_owned()))
    }
}

/// A service account, as NAMESPACE:NAME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account(pub(super) String);

impl FromStr for Account {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_good = text.split(':').count() == 2;
        is_good.then(|| Self(text.to_owned())).ok_or_else(|| Invalid::Account(text.to_owned()))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A client that the controller lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// Everybody.
    All,
    /// Clients with a token of this account.
    Account(Account),
}

impl FromStr for Admitted {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == OFF { Ok(Self::All) } else { text.parse().map(Self::Account) }
    }
}

/// A label of nodes, or `off` for none.
#[derive(Clone, Debug)]
pub(super) struct LabelOrNone(pub(super) Option<NodeLabel>);

impl FromStr for LabelOrNone {
    type Err = <NodeLabel as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == OFF { Ok(Self(None)) } else { text.parse().map(|label| Self(Some(label))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_at_least_a_second() {
        assert_eq!("1m30s".parse(), Ok(Seconds(Duration::from_secs(90))));
        assert_eq!("500ms".parse::<Seconds>(), Err(Invalid::ShortTime("500ms".to_owned())));
        assert_eq!("ten".parse::<Seconds>(), Err(Invalid::Time("ten".to_owned())));
    }

    #[test]
    fn an_account_has_a_namespace_and_a_name() {
        assert_eq!("a:b".parse(), Ok(Account("a:b".to_owned())));
        assert_eq!("off".parse(), Ok(Admitted::All));
        for bad in ["a", "a:b:c", ""] {
            assert_eq!(bad.parse::<Admitted>(), Err(Invalid::Account(bad.to_owned())));
        }
    }
}
