module meridian/conformance/traffic

go 1.26.0
