//! The codec of gRPC messages: protobuf, with many small messages sent together.

use prost::Message;
use std::marker::PhantomData;
use tonic::codec::{self, BufferSettings};
use tonic_prost::ProstCodec;

/// The buffer size of a stream under load: hundreds of flows.
const LARGE: usize = 64 << 10;
/// The buffer size at first of what decodes.
const SMALL: usize = 1 << 10;
/// The buffer size at first where thousands of streams mostly wait: a message of a few numbers.
const TINY: usize = 64;

/// The codec of streams that send many messages.
pub type Codec<T, U> = BufferedCodec<T, U, LARGE>;
/// The codec of streams that mostly wait, of which there are thousands.
pub type SmallCodec<T, U> = BufferedCodec<T, U, TINY>;

/// Encodes `T` with a buffer of this size, and decodes `U`, of which most are small: the buffer grows with a message.
#[derive(Clone, Debug)]
pub struct BufferedCodec<T, U, const BYTES: usize>(PhantomData<(T, U)>);

impl<T, U, const BYTES: usize> Default for BufferedCodec<T, U, BYTES> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U, const BYTES: usize> codec::Codec for BufferedCodec<T, U, BYTES>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as codec::Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as codec::Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BYTES, BYTES - (BYTES >> 3)))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(SMALL, SMALL))
    }
}
