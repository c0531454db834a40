"""What `remedy dotnet` prints, compiled and run by .NET Core 3.1, which has no ConnectCallback yet."""

import os
import pathlib
import unittest

import lab
from remedied import FLAGS, RemedyTest

DOTNET = pathlib.Path(os.environ.get("DOTNET_ROOT", "/nonexistent"))
ASSEMBLIES = ("System.Private.CoreLib", "System.Runtime", "System.Net.Sockets", "System.Net.Primitives", "System.Net.Http", "System.Private.Uri")
CALL = "            Protect(socket);\n            socket.Connect"


@unittest.skipUnless(DOTNET.exists(), "dotnetcore2 is not installed")
class DotnetTest(RemedyTest):
    def test_dotnet(self):
        self.serve(lab.BACKEND, 9000, "hold")
        printed = lab.remedy("dotnet", "--host", lab.BACKEND_IP, "--port", 9000, *FLAGS)
        self.assertIn(CALL, printed)
        client = self.run_program("Off", printed.replace(CALL, CALL.splitlines()[1]))
        self.before(lab.CLIENT, "off")
        lab.stop(client)
        self.run_program("Keepalive", printed)
        self.after(lab.CLIENT, target="dotnet", program=".NET Core 3.1", before="off")

    def run_program(self, name, text):
        source, program = self.dir / f"{name}.cs", self.dir / f"{name}.dll"
        source.write_text(text)
        (framework,) = (DOTNET / "shared" / "Microsoft.NETCore.App").iterdir()
        references = [f"-r:{framework}/{assembly}.dll" for assembly in ASSEMBLIES]
        self.run_in(lab.CLIENT, "mcs", "-nostdlib", "-noconfig", *references, f"-out:{program}", source)
        settings = '{"runtimeOptions": {"framework": {"name": "Microsoft.NETCore.App", "version": "3.1.0"}}}'
        program.with_suffix(".runtimeconfig.json").write_text(settings)
        without_icu = {**os.environ, "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"}
        client = self.start(lab.CLIENT, DOTNET / "dotnet", "exec", program, env=without_icu)
        connected = ("ss", "-Htn", "state", "established", "dport = :9000")
        self.wait_until(lambda: client.poll() is not None or self.run_in(lab.CLIENT, *connected), ".NET to connect")
        self.assertIsNone(client.poll(), client.log.read_text())
        return client


if __name__ == "__main__":
    unittest.main()
