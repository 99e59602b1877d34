"""From a class name to a trained, evaluated, documented YOLO detector, out of Open Images.

Each stage is a function of the same name as its command: ``oiyolo.select``, ``oiyolo.fetch``,
``oiyolo.prepare``, ``oiyolo.split``, ``oiyolo.build``, ``oiyolo.train``, ``oiyolo.plot``,
``oiyolo.evaluate``, ``oiyolo.report``. A name is imported when it is first used, so that
``import oiyolo`` costs nothing.
"""

__version__ = "0.1.0"
