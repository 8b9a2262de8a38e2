//! Reflection: the services and the files that describe them, in both versions of the protocol.
//!
//! An unknown name is answered with an error inside the stream, which continues.

use super::unimplemented::ServiceNames;
use crate::proto::DESCRIPTORS;
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use std::{collections::BTreeMap, sync::Arc};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Response, Status, Streaming, codegen::BoxStream};
use tonic_reflection::pb::{v1, v1alpha};

/// Services that every server has.
const ALWAYS: [&str; 3] =
    ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// The index of files and symbols.
#[derive(Clone, Debug)]
pub(super) struct Reflection(Arc<Registry>);

#[derive(Debug, Default)]
struct Registry {
    services: Vec<String>,
    /// The encoded files by name.
    files: BTreeMap<String, Vec<u8>>,
    /// The file that declares each name.
    symbols: BTreeMap<String, String>,
}

/// An answer, independent of the protocol's version.
enum Answer {
    File(Vec<u8>),
    /// A message without extensions.
    Extensions(String),
    Services(Vec<String>),
    Unknown(String),
}

impl Reflection {
    /// Describes these services, and those that every server has.
    pub(super) fn of(services: &[&str]) -> Self {
        let mut services: Vec<String> = services.iter().chain(&ALWAYS).map(|name| (*name).to_owned()).collect();
        services.sort_unstable();
        let mut registry = Registry { services, ..Registry::default() };
        let sets =
            [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET, v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET];
        for set in sets {
            // The descriptors come from the builds; a test decodes them.
            for file in FileDescriptorSet::decode(set).unwrap_or_default().file {
                registry.add(&file);
            }
        }
        Self(Arc::new(registry))
    }
}

impl Reflection {
    /// The service names, for errors about unknown services.
    pub(super) fn named(&self) -> ServiceNames {
        ServiceNames::new(self.0.services.iter().cloned())
    }
}

impl Registry {
    fn add(&mut self, file: &FileDescriptorProto) {
        let scope = file.package();
        file.message_type.iter().for_each(|message| self.add_message(file.name(), scope, message));
        file.enum_type.iter().for_each(|of| self.add_enum(file.name(), scope, of));
        for service in &file.service {
            let name = format!("{scope}.{}", service.name());
            service.method.iter().for_each(|method| self.name(file.name(), &name, method.name()));
            self.symbols.insert(name, file.name().to_owned());
        }
        self.files.insert(file.name().to_owned(), file.encode_to_vec());
    }

    fn add_message(&mut self, file: &str, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        message.field.iter().for_each(|field| self.name(file, &name, field.name()));
        message.oneof_decl.iter().for_each(|choice| self.name(file, &name, choice.name()));
        message.nested_type.iter().for_each(|nested| self.add_message(file, &name, nested));
        message.enum_type.iter().for_each(|of| self.add_enum(file, &name, of));
        self.symbols.insert(name, file.to_owned());
    }

    fn add_enum(&mut self, file: &str, scope: &str, of: &EnumDescriptorProto) {
        let name = format!("{scope}.{}", of.name());
        for value in &of.value {
            // An enum's values are in the scope around the enum; clients also look below the enum.
            self.name(file, scope, value.name());
            self.name(file, &name, value.name());
        }
        self.symbols.insert(name, file.to_owned());
    }

    fn name(&mut self, file: &str, scope: &str, name: &str) {
        self.symbols.insert(format!("{scope}.{name}"), file.to_owned());
    }

    fn file(&self, name: &str) -> Answer {
        let found = self.files.get(name).cloned();
        found.map_or_else(|| Answer::Unknown(format!("file not found: {name}")), Answer::File)
    }

    fn symbol(&self, name: &str) -> Answer {
        let found = self.symbols.get(name.trim_start_matches('.')).map(|file| self.file(file));
        found.unwrap_or_else(|| Answer::Unknown(format!("symbol not found: {name}")))
    }

    fn extensions(&self, of: String) -> Answer {
        if self.symbols.contains_key(&of) { Answer::Extensions(of) } else { self.symbol(&of) }
    }
}

macro_rules! serve {
    ($version:ident) => {
        #[tonic::async_trait]
        impl $version::server_reflection_server::ServerReflection for Reflection {
            type ServerReflectionInfoStream = BoxStream<$version::ServerReflectionResponse>;

            async fn server_reflection_info(
                &self,
                request: Request<Streaming<$version::ServerReflectionRequest>>,
            ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                use $version::server_reflection_request::MessageRequest as Asked;
                use $version::server_reflection_response::MessageResponse as Answered;
                let registry = Arc::clone(&self.0);
                let answer = move |asked: Result<$version::ServerReflectionRequest, Status>| {
                    let asked = asked?;
                    let answer = match asked.message_request.clone() {
                        Some(Asked::FileByFilename(name)) => registry.file(&name),
                        Some(Asked::FileContainingSymbol(name)) => registry.symbol(&name),
                        Some(Asked::FileContainingExtension(of)) => Answer::Unknown(format!(
                            "extension not found: {} of {}",
                            of.extension_number, of.containing_type
                        )),
                        Some(Asked::AllExtensionNumbersOfType(of)) => registry.extensions(of),
                        Some(Asked::ListServices(_)) => Answer::Services(registry.services.clone()),
                        None => return Err(Status::invalid_argument("invalid MessageRequest: nothing is asked")),
                    };
                    let answer = match answer {
                        Answer::File(file) => Answered::FileDescriptorResponse($version::FileDescriptorResponse {
                            file_descriptor_proto: vec![file],
                        }),
                        Answer::Extensions(base_type_name) => {
                            Answered::AllExtensionNumbersResponse($version::ExtensionNumberResponse {
                                base_type_name,
                                extension_number: Vec::new(),
                            })
                        }
                        Answer::Services(names) => Answered::ListServicesResponse($version::ListServiceResponse {
                            service: names.into_iter().map(|name| $version::ServiceResponse { name }).collect(),
                        }),
                        Answer::Unknown(error_message) => Answered::ErrorResponse($version::ErrorResponse {
                            error_code: Code::NotFound as i32,
                            error_message,
                        }),
                    };
                    Ok($version::ServerReflectionResponse {
                        valid_host: asked.host.clone(),
                        original_request: Some(asked),
                        message_response: Some(answer),
                    })
                };
                Ok(Response::new(Box::pin(request.into_inner().map(answer))))
            }
        }
    };
}

serve!(v1);
serve!(v1alpha);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_that_is_listed_is_described() {
        let Reflection(registry) = Reflection::of(&["observer.Observer", "peer.Peer", "meridian.v1.Zones"]);
        assert_eq!(registry.services.len(), 6);
        assert!(registry.services.is_sorted());
        for service in &registry.services {
            assert!(matches!(registry.symbol(service), Answer::File(_)), "{service}");
        }
        for name in [
            "flow.Flow",
            ".flow.Flow",
            "flow.Flow.verdict",
            "flow.Verdict.DROPPED",
            "flow.DROPPED",
            "observer.Observer.GetFlows",
            "google.protobuf.Struct",
            "grpc.health.v1.HealthCheckRequest",
        ] {
            assert!(matches!(registry.symbol(name), Answer::File(_)), "{name}");
        }
        for name in ["", "flow", "flow.nothing", "Flow", "nope.Nope"] {
            assert!(matches!(registry.symbol(name), Answer::Unknown(text) if text.ends_with(name)), "{name}");
        }
        assert!(matches!(registry.extensions("flow.Flow".into()), Answer::Extensions(_)));
        assert!(matches!(registry.extensions("flow.Nope".into()), Answer::Unknown(_)));
        // The dependencies of each file must be available, too.
        for file in registry.files.values() {
            for dependency in FileDescriptorProto::decode(file.as_slice()).unwrap().dependency {
                assert!(registry.files.contains_key(&dependency), "{dependency}");
            }
        }
    }

    /// The answers to these requests in one stream, in the given version's messages: `files N`, `services N`,
    /// `extensions`, `error CODE TEXT`.
    macro_rules! answers {
        ($version:ident, $channel:expr, $asked:ident => $requests:expr) => {{
            use $version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest as $asked,
                server_reflection_response::MessageResponse as Got,
            };
            let requests = $requests
                .into_iter()
                .map(|asked| ServerReflectionRequest { host: "h".into(), message_request: Some(asked) });
            let requests: Vec<_> = requests.collect();
            let mut client = ServerReflectionClient::new($channel);
            let stream = client.server_reflection_info(tokio_stream::iter(requests.clone())).await.unwrap();
            let answers: Vec<_> = stream.into_inner().map(Result::unwrap).collect().await;
            for (asked, answer) in requests.iter().zip(&answers) {
                assert_eq!((answer.original_request.as_ref(), answer.valid_host.as_str()), (Some(asked), "h"));
            }
            let short = |answer: $version::ServerReflectionResponse| match answer.message_response.unwrap() {
                Got::FileDescriptorResponse(files) => format!("files {}", files.file_descriptor_proto.len()),
                Got::ListServicesResponse(services) => format!("services {}", services.service.len()),
                Got::AllExtensionNumbersResponse(_) => "extensions".to_owned(),
                Got::ErrorResponse(error) => format!("error {} {}", error.error_code, error.error_message),
            };
            answers.into_iter().map(short).collect::<Vec<String>>()
        }};
    }

    #[tokio::test]
    async fn unknown_names_are_answered_in_the_stream_and_unknown_methods_have_their_text() {
        let reflection = Reflection::of(&["observer.Observer"]);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        let serving = tonic::transport::Server::builder()
            .layer(reflection.named())
            .add_service(v1::server_reflection_server::ServerReflectionServer::new(reflection.clone()))
            .add_service(v1alpha::server_reflection_server::ServerReflectionServer::new(reflection))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        let serving = tokio::spawn(serving);
        let channel = tonic::transport::Endpoint::from_shared(at).unwrap().connect().await.unwrap();
        let expected = [
            "services 4",
            "error 5 symbol not found: nope.Nope",
            "error 5 file not found: ../../etc/passwd",
            "error 5 symbol not found: ",
            "files 1",
            "files 1",
            "extensions",
            "error 5 extension not found: 7 of flow.Flow",
        ];
        macro_rules! requests {
            ($version:ident, $asked:ident) => {
                [
                    $asked::ListServices("*".into()),
                    $asked::FileContainingSymbol("nope.Nope".into()),
                    $asked::FileByFilename("../../etc/passwd".into()),
                    $asked::FileContainingSymbol(String::new()),
                    $asked::FileContainingSymbol("grpc.health.v1.Health.Watch".into()),
                    $asked::FileContainingSymbol("grpc.reflection.v1alpha.ServerReflection".into()),
                    $asked::AllExtensionNumbersOfType("flow.Flow".into()),
                    $asked::FileContainingExtension($version::ExtensionRequest {
                        containing_type: "flow.Flow".into(),
                        extension_number: 7,
                    }),
                ]
            };
        }
        assert_eq!(answers!(v1, channel.clone(), Asked => requests!(v1, Asked)), expected);
        assert_eq!(answers!(v1alpha, channel.clone(), Asked => requests!(v1alpha, Asked)), expected);

        let mut client = tonic::client::Grpc::new(channel);
        for (path, text) in [
            ("/relay.Relay/Nope", "unknown service relay.Relay"),
            (
                "/grpc.reflection.v1.ServerReflection/Nope",
                "unknown method Nope for service grpc.reflection.v1.ServerReflection",
            ),
            ("/observer.Observer/100%25", "unknown method 100%25 for service observer.Observer"),
        ] {
            client.ready().await.unwrap();
            let codec = tonic_prost::ProstCodec::<(), ()>::default();
            let status = client.unary(Request::new(()), path.parse().unwrap(), codec).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::Unimplemented, text));
        }
        serving.abort();
    }
}
