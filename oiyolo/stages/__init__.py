"""The stages: one module and one public function each, the same name as the command."""
