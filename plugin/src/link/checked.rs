//! A codec that examines a message before it is decoded.
//!
//! A decoded message can take hundreds of times the memory of its encoding: an empty message in a list has two bytes on
//! the wire. So messages from outside are checked before they are decoded.

use std::marker::PhantomData;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};

/// Checks encoded messages.
pub trait Check: Send + 'static {
    /// Checks a message of the type `M`.
    ///
    /// # Errors
    /// The message must not be decoded.
    fn check<M: 'static>(encoded: &[u8]) -> Result<(), Status>;
}

/// No check.
#[derive(Clone, Copy, Debug)]
pub struct Unchecked;

impl Check for Unchecked {
    fn check<M: 'static>(_: &[u8]) -> Result<(), Status> {
        Ok(())
    }
}

/// The codec `I`, which decodes only what passes the check `C`.
#[derive(Clone, Debug)]
pub struct Checked<I, C>(I, PhantomData<C>);

impl<I: Default, C> Default for Checked<I, C> {
    fn default() -> Self {
        Self(I::default(), PhantomData)
    }
}

impl<I, C> Codec for Checked<I, C>
where
    I: Codec<Decoder: Send + 'static, Decode: 'static>,
    C: Check,
{
    type Encode = I::Encode;
    type Decode = I::Decode;
    type Encoder = I::Encoder;
    type Decoder = CheckedDecoder<I::Decoder, C>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        CheckedDecoder(self.0.decoder(), PhantomData)
    }
}

/// The decoder of [`Checked`].
#[derive(Debug)]
pub struct CheckedDecoder<D, C>(D, PhantomData<C>);

impl<D: Decoder<Error = Status, Item: 'static>, C: Check> Decoder for CheckedDecoder<D, C> {
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<D::Item>, Status> {
        // The buffer of a message is contiguous.
        C::check::<D::Item>(prost::bytes::Buf::chunk(from))?;
        self.0.decode(from)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}
